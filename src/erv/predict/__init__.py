"""What a published version says about the clips of a folder or a data set."""
