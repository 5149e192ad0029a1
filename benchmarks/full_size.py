"""The cost of the data stages at full size: 26,417 clips, as many as MAFW and DFEW have together.

    python benchmarks/full_size.py                  # make bench-full; writes benchmarks/full_size.json
    python benchmarks/full_size.py --sizes 200 1000 --skip-official     # writes nothing without --out

There are two parts. First growth: tables of 1,000, 5,000 and 26,417 small clips go through pin, ingest,
probing, expectations and extraction, each step in its own process; time and memory must grow linearly. Then
the official trees at full size, from pin to shards: MAFW with its 10,045 clips and DFEW with its 16,372, with
every published count expected (`ingest.expect: full`).

The clips are a few dozen synthetic ones, given different bytes by an MP4 box that decoders skip. Memory is
the sum of the proportional set sizes of a step's processes, sampled five times a second.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # for `tests`

RESULTS = Path(__file__).with_suffix(".json")
LIBRARIES = ("decord", "av", "pillow", "numpy", "pyarrow", "great-expectations")
SIZES = (1000, 5000, 26417)
STEPS = ("pin", "ingest", "probe", "validate", "extract")
OFFICIAL = {"mafw": 10045, "dfew": 16372}
_TEMPLATES = 48
_POLL_SECONDS = 0.2


def templates() -> list[bytes]:
    """Real H.264/AAC clips of 0.6 to 1.6 seconds, 96x96 at 12 frames a second."""
    import numpy as np

    from erv.sample.clips import encode

    made = []
    for index in range(_TEMPLATES):
        rng = np.random.default_rng(index)
        seconds = 0.6 + index / _TEMPLATES
        base = rng.integers(30, 220, (12, 12, 3)).repeat(8, 0).repeat(8, 1)
        frames = [np.roll(base, 3 * i, axis=1).astype(np.uint8) for i in range(int(12 * seconds))]
        times = np.arange(int(16000 * seconds)) / 16000
        sound = 6000 * np.sin(2 * np.pi * (200 + 10 * index) * times)
        made.append(encode(frames, sound.astype(np.int16)))
    return made


def write_table(root: Path, count: int, clips: list[bytes]) -> None:
    """Writes a tree for the `table` reader."""
    from erv.labels import LabelSpace
    from tests.support.trees import sign

    names = LabelSpace.load("mafw").names
    (root / "clips").mkdir(parents=True)
    lines = ["clip,label,fold"]
    for index in range(count):
        (root / f"clips/{index:05d}.mp4").write_bytes(sign(clips[index % len(clips)], index))
        lines.append(f"clips/{index:05d}.mp4,{names[index % len(names)]},{index % 5 + 1}")
    (root / "clips.csv").write_text("\n".join(lines) + "\n")


def step(name: str, dataset: str, work: Path) -> dict[str, Any]:
    """Runs one step in this process; its results for the next step are in `work`."""
    from erv.files import read_document, write_document
    from erv.ingest.ingest import ingest
    from erv.ingest.readers.by_name import selection_of
    from erv.manifest import read_manifest, write_manifest
    from erv.pinning import pin
    from erv.settings import load_settings
    from erv.sources import Lock

    settings = load_settings("params.yaml")
    lock_file, manifest, checks = (work / f for f in ("lock.json", "manifest.parquet", "checks.json"))
    if name == "pin":
        uri = settings.sources.model_dump()[dataset]
        lock = pin(dataset, uri, None, selection=selection_of(settings.ingest.readers[dataset]))
        lock.save(lock_file)
        return {"files": len(lock.files), "lock_megabytes": round(lock_file.stat().st_size / 1e6, 1)}
    lock = Lock.load(lock_file)
    if name == "ingest":
        result = ingest(dataset, lock, None, settings.ingest, seed=0)
        write_manifest(result.rows, manifest)
        write_document(result.checks_document(), checks)
        failed = [check.name for check in result.checks if not check.success]
        return {"counts": result.counts(), "failed_checks": failed}
    rows = read_manifest(manifest)
    if name == "probe":
        from erv.validate.probing import probe_clips

        probes = probe_clips(rows, lock, None, settings.validate_, workers=settings.machine.validate_.workers)
        (work / "probes.json").write_text(json.dumps({clip: asdict(p) for clip, p in probes.items()}))
        return {"clips": len(probes), "faults": sum(p.fault is not None for p in probes.values())}
    document = read_document(checks, "ingest")
    if name == "validate":
        from erv.validate.probing import Probe
        from erv.validate.validate import validate

        found = {c: Probe(**p) for c, p in json.loads((work / "probes.json").read_text()).items()}
        verdict = validate(dataset, rows, found, settings.validate_, document, work / "docs")
        return {"clips": verdict["clips"], "success": verdict["success"]}
    from erv.extract.extract import extract

    done = extract(
        rows,
        lock,
        None,
        settings.extract,
        work / "shards",
        work / "quarantine.parquet",
        workers=settings.machine.extract.workers,
        dask=settings.machine.extract.dask,
        excluded=document["excluded"],
        state_root=work / "state",
    )
    size = sum(path.stat().st_size for path in (work / "shards").iterdir())
    return {
        "clips": done.clips,
        "extracted": done.extracted,
        "quarantined": done.quarantined,
        "shards_megabytes": round(size / 1e6, 1),
    }


def measured(name: str, dataset: str, work: Path) -> dict[str, Any]:
    """Runs a step in its own process: its answer, seconds, peak memory of its whole process tree."""
    work.mkdir(parents=True, exist_ok=True)
    answer = work / f"{name}.answer.json"
    command = [sys.executable, __file__, "--step", name, "--dataset", dataset, "--work", str(work)]
    started = time.perf_counter()
    with (work / f"{name}.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        peak = 0
        while process.poll() is None:
            peak = max(peak, _tree_bytes(process.pid))
            time.sleep(_POLL_SECONDS)
    seconds = time.perf_counter() - started
    if process.returncode:
        raise SystemExit(f"{name} of {dataset} failed:\n{(work / f'{name}.log').read_text()[-3000:]}")
    entry = {
        "seconds": round(seconds, 1),
        "peak_megabytes": round(peak / 1e6),
        **json.loads(answer.read_text()),
    }
    print(f"  {dataset:<6} {name:<9} {entry['seconds']:>7.1f} s  {entry['peak_megabytes']:>5} MB", flush=True)
    return entry


def _tree_bytes(pid: int) -> int:
    total = 0
    try:
        parent = psutil.Process(pid)
        for process in [parent, *parent.children(recursive=True)]:
            try:
                total += process.memory_full_info().pss
            except psutil.Error:
                continue
    except psutil.Error:
        return 0
    return total


def workspace(folder: Path, datasets: list[str], sources: dict[str, str], expect: str) -> None:
    """Writes `params.yaml` and the label spaces of a run."""
    import yaml

    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["datasets"] = datasets
    params["roles"] = {"cold_start": datasets[0], "train": datasets, "test": datasets}
    params["sft"]["max_steps"] = 0  # none of them has explanations
    params["sources"] |= sources
    params["ingest"]["expect"] = expect
    params["ingest"]["readers"]["films"] = {
        "reader": "table",
        "table": "clips.csv",
        "columns": {"fold": "fold"},
    }
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    (folder / "data/label_spaces").mkdir(parents=True, exist_ok=True)
    (folder / "data/label_spaces/films.yaml").write_text("uses: mafw\n")


def growth(folder: Path, sizes: list[int], clips: list[bytes]) -> dict[str, Any]:
    """Measures the table at several sizes."""
    result = {}
    for size in sizes:
        print(f"{size} clips in a table", flush=True)
        root = folder / f"raw-{size}"
        write_table(root, size, clips)
        workspace(folder, ["films"], {"films": str(root)}, "subset")
        work = folder / f"work-{size}"
        result[str(size)] = {name: measured(name, "films", work) for name in STEPS}
        shutil.rmtree(root)
        shutil.rmtree(work)
    return result


def slopes(result: dict[str, Any]) -> dict[str, Any]:
    """Milliseconds and kilobytes that each clip adds to a step, between the smallest and each larger size."""
    sizes = sorted(int(size) for size in result)
    table: dict[str, Any] = {}
    for name in STEPS:
        small = result[str(sizes[0])][name]
        table[name] = {
            str(size): {
                "ms_per_clip": round(
                    1000 * (result[str(size)][name]["seconds"] - small["seconds"]) / (size - sizes[0]), 3
                ),
                "kb_per_clip": round(
                    1000
                    * (result[str(size)][name]["peak_megabytes"] - small["peak_megabytes"])
                    / (size - sizes[0]),
                    2,
                ),
            }
            for size in sizes[1:]
        }
    return table


def official(folder: Path, clips: list[bytes]) -> dict[str, Any]:
    """Measures MAFW and DFEW with all their clips and published counts."""
    from tests.support import trees

    def clip(index: int) -> bytes:
        return trees.sign(clips[index % len(clips)], index)

    roots = {name: folder / name for name in OFFICIAL}
    print("official trees at full size", flush=True)
    trees.full_mafw(roots["mafw"], clip)
    trees.full_dfew(roots["dfew"], clip)
    workspace(folder, list(OFFICIAL), {name: str(root) for name, root in roots.items()}, "full")
    return {
        name: {part: measured(part, name, folder / f"work-{name}") for part in STEPS} for name in OFFICIAL
    }


def main() -> None:
    """Runs both parts, or one step of them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--skip-official", action="store_true")
    parser.add_argument("--out", type=Path, help=f"default: {RESULTS.name}, but only for the default run")
    parser.add_argument("--folder", type=Path, default=None, help="for the clips; a temporary one by default")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--dataset", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        answer = step(options.step, options.dataset, options.work)
        (options.work / f"{options.step}.answer.json").write_text(json.dumps(answer))
        return
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    before = Path.cwd()
    os.chdir(folder)  # label spaces and cached downloads are found in the working directory
    try:
        clips = templates()
        grown = growth(folder, sorted(options.sizes), clips)
        report: dict[str, Any] = {
            "command": " ".join(["python", "benchmarks/full_size.py", *sys.argv[1:]]),
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
            "versions": {name: version(name) for name in LIBRARIES},
            "growth": grown,
            "per_clip": slopes(grown),
        }
        if not options.skip_official:
            report["official"] = official(folder, clips)
    finally:
        os.chdir(before)
        shutil.rmtree(folder, ignore_errors=True)
    if options.out is None and options.sizes == list(SIZES) and not options.skip_official:
        options.out = RESULTS
    if options.out is not None:
        options.out.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report["per_clip"], indent=2))
    largest = report["growth"][str(max(options.sizes))]
    seconds = largest["ingest"]["seconds"] + largest["validate"]["seconds"]
    peak = max(largest["ingest"]["peak_megabytes"], largest["validate"]["peak_megabytes"])
    rows = max(options.sizes)
    print(f"{rows} rows: ingest + expectations {seconds:.0f} s (limit 180), {peak} MB (limit 1500)")


if __name__ == "__main__":
    main()
