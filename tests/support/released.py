"""Released HumanOmni folders, made from the tiny one of the golden vectors."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from erv.policies.humanomni import HumanOmniForConditionalGeneration

DATA = Path(__file__).parents[1] / "golden" / "data" / "humanomni_parity"
VISION, AUDIO = "model.vision_tower.", "model.audio_tower."
WEIGHTS = load_file(DATA / "model.safetensors")
load = HumanOmniForConditionalGeneration.from_pretrained


def without(*prefixes):
    return {name: weight for name, weight in WEIGHTS.items() if not name.startswith(prefixes)}


def released(folder, weights=WEIGHTS, shards=1, leave_out=(), **config):
    """A released checkpoint: that of the golden vectors, with other weights, files or configuration keys."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in DATA.glob("*config.json"):
        if file.name not in leave_out:
            shutil.copy(file, folder)
    content = json.loads((DATA / "config.json").read_text()) | config
    (folder / "config.json").write_text(json.dumps(content))
    if shards == 1:
        save_file(weights, folder / "model.safetensors")
        return folder
    names = sorted(weights)
    places = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        save_file({name: weights[name] for name in names[shard::shards]}, folder / file)
        places |= dict.fromkeys(names[shard::shards], file)
    index = {"metadata": {"total_size": 0}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def same(model, other):
    state = other.state_dict()
    return all(torch.equal(weight, state[name]) for name, weight in model.state_dict().items())


def siglip_state():
    prefix = "model.vision_tower.vision_tower.vision_model."
    return {name.removeprefix(prefix): w for name, w in WEIGHTS.items() if name.startswith(prefix)}


def whisper_state():
    prefix = "model.audio_tower.audio_tower.encoder."
    return {name.removeprefix(prefix): w for name, w in WEIGHTS.items() if name.startswith(prefix)}


def save_bare(folder, weights, config):
    folder.mkdir(parents=True)
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))


def cache(root, name, folder):
    """Puts a folder where the hub's cache keeps a model of that name."""
    cached = root / f"models--{name.replace('/', '--')}"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("a1")
    shutil.copytree(folder, cached / "snapshots" / "a1")
    return {"cache_dir": root, "local_files_only": True}
