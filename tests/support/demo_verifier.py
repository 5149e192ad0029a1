"""The demo's verifier without the demo: its sentences need no clips, its encoder no towers."""

from erv.distill.corpus import Sentence
from erv.distill.distill import distill
from erv.distill.table import write_sentences
from erv.sample.base_checkpoint import _write_encoder
from erv.sample.clips import stream
from erv.sample.contrasts import compose_contrasts
from erv.sample.emotions import EMOTIONS
from erv.sample.sample import _CONTRASTS_PER_CLIP, SampleSize, _plan
from erv.settings import load_settings
from erv.train_erv.train_erv import train_verifier


def train_demo_verifier(folder, params, seed=0):
    """Trains the verifier of `make demo` into `folder/verifier`; returns its metrics."""
    settings = load_settings(params)
    plan = _plan("reasoning", SampleSize.parse("demo").reasoning, EMOTIONS, seed)
    loose = compose_contrasts(_CONTRASTS_PER_CLIP * len(plan), stream(seed, "reasoning", "contrasts"))
    corpus = [
        Sentence(text, "reasoning", item.cues.clip_id, labels)
        for item in plan
        for text, labels in item.sentences
    ]
    corpus += [Sentence(text, "sentences", "", labels) for text, labels in loose]
    write_sentences(
        distill(corpus, {"reference": None}, settings.distill, seed).sentences, folder / "sentences.parquet"
    )
    explanations = {item.cues.clip_id: " ".join(text for text, _ in item.sentences) for item in plan}
    texts = [explanations[name] for name in sorted(explanations)] + [text for text, _ in loose]
    _write_encoder(texts, folder / "encoder", seed)
    return train_verifier(
        folder / "sentences.parquet",
        folder / "encoder",
        folder / "verifier",
        settings.train_erv,
        settings.runtime,
        seed=seed,
        checkpoints=folder / "checkpoints",
    )
