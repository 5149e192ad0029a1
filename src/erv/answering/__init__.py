"""What a version says about clips: its policy answers, its verifier reads the explanation."""
