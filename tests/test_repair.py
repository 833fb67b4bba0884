"""Whatever happens to a dataset, `verify` names it and `repair` restores it to the byte."""

import errno
import hashlib
import json
import os
import re
import shutil
import struct
import subprocess
import tempfile
import zlib
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from io import BufferedReader
from pathlib import Path

import pyarrow as pa
import pytest
from captcha.image import DEFAULT_FONTS
from conftest import HANG_SECONDS, MEMORY, NOBODY, as_another_user, hash_files, replace_index, wait_until
from processes import Process

from captcha_registry.dataset.dataset import CaptchaDataset
from captcha_registry.dataset.index import INDEX_NAME, read_index
from captcha_registry.dataset.manifest import MANIFEST_NAME, FileEntry, Manifest, read_manifest, write_manifest
from captcha_registry.dataset.records import ShardWriter, decode_sample, encode_sample, iterate_records
from captcha_registry.dataset.spec import DatasetSpec, SplitRule
from captcha_registry.dataset.verify import STAGING_NAME, Depth, Problem, verify_dataset
from captcha_registry.errors import UserError
from captcha_registry.generation import repair as repair_module
from captcha_registry.generation.repair import repair_dataset
from captcha_registry.generation.splitting import split_dataset

Row = dict[str, object]


def run_command(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    process = Process(["captcha_registry.cli", *map(str, arguments)], cwd, os.environ)
    output, errors = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode is not None
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def verify(root: Path, depth: Depth) -> list[str]:
    with ThreadPoolExecutor(1) as executor:
        return [f"{p.path.relative_to(root).as_posix()}: {p.kind}: {p.what}" for p in verify_dataset(root, depth, executor)]


def repair(root: Path, *, extras: tuple[str, ...] = (), failed: tuple[str, ...] = ()) -> list[str]:
    """Repair a dataset; return a line for each file that was repaired, or else was not."""
    with ThreadPoolExecutor(1) as executor:
        done = repair_dataset(root, executor)
    assert done.extras == [root / path for path in extras]
    assert tuple(done.failed) == failed
    return [f"{path}: {what}" for path, what in (done.repaired | done.failed).items()]


@dataclass(frozen=True)
class Patient:
    """A dataset to damage, the index row of a sample in the middle of one of its shards, and an index of another version."""

    root: Path
    row: Row
    other_index: Path

    @property
    def shard(self) -> Path:
        return self.root / str(self.row["shard"])

    @property
    def offset(self) -> int:
        return int(str(self.row["offset"]))

    def flip(self, place: int) -> None:
        content = bytearray(self.shard.read_bytes())
        content[place] ^= 0x10
        self.shard.write_bytes(content)

    def flip_last(self) -> None:
        self.flip(self.offset + int(str(self.row["length"])) - 1)

    def cut(self, size_bytes: int) -> None:
        os.truncate(self.shard, size_bytes)

    def swap(self) -> None:
        one, other = (self.root / shard.path for shard in read_manifest(self.root).shards[:2])
        one.rename(self.root / "aside")
        other.rename(one)
        (self.root / "aside").rename(other)

    def rename(self) -> None:
        self.shard.rename(self.shard.with_name("x"))

    def claim_a_huge_picture(self) -> None:
        """Rewrite a shard with good checksums all around a picture that says it is 100,000 x 100,000."""
        records = [data for _, data in iterate_records(self.shard)]
        with ShardWriter(self.shard) as writer:
            for data in records:
                sample = decode_sample(data)
                header = b"IHDR" + struct.pack(">II", 100_000, 100_000) + sample.image[24:29]
                image = sample.image[:12] + header + struct.pack(">I", zlib.crc32(header)) + sample.image[33:]
                writer.write(encode_sample(replace(sample, image=image)) if sample.id == self.row["id"] else data)


@pytest.fixture(scope="session")
def other_version(
    generate: Callable[..., CaptchaDataset],
    tiny_spec: DatasetSpec,
    shard_rule: SplitRule,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The tiny dataset with another seed."""
    root = tmp_path_factory.mktemp("other")
    split_dataset(generate(tiny_spec.model_copy(update={"seed": 8})), shard_rule, root)
    return root


@pytest.fixture
def patient(dataset_copy: Path, other_version: Path) -> Patient:
    row = read_index(dataset_copy / INDEX_NAME).to_pylist()[3]
    return Patient(dataset_copy, row, other_version / INDEX_NAME)


NOTHING = None
ANYTHING = ""
SHARD, INDEX = "{shard}: ", f"{INDEX_NAME}: "
CHANGED = SHARD + "changed: "
RECORD = SHARD + "record: record at byte {offset:,}: "
LENGTH, DATA = RECORD + "wrong checksum of the length (sample 3)", RECORD + "wrong checksum of the data (sample 3)"


@pytest.mark.parametrize(
    ("damage", "quick", "full", "deep"),
    [
        pytest.param(lambda p: p.flip(p.offset), NOTHING, CHANGED, LENGTH, id="flip in length"),
        pytest.param(lambda p: p.flip(p.offset + 9), NOTHING, CHANGED, LENGTH, id="flip in the length's CRC"),
        pytest.param(lambda p: p.flip(p.offset + 99), NOTHING, CHANGED, DATA, id="flip in data"),
        pytest.param(Patient.flip_last, NOTHING, CHANGED, DATA, id="flip in the data's CRC"),
        pytest.param(
            lambda p: p.cut(p.offset), CHANGED, CHANGED, SHARD + "record: sample 3 is missing at byte {offset:,}", id="cut"
        ),
        pytest.param(lambda p: p.cut(p.offset + 99), CHANGED, CHANGED, RECORD + "file ends inside the record", id="cut inside"),
        pytest.param(lambda p: p.cut(p.offset + 5), CHANGED, CHANGED, RECORD + "file ends inside the header", id="cut in header"),
        pytest.param(lambda p: p.cut(0), CHANGED + "0 bytes", CHANGED + "0 bytes", SHARD + "record: sample 3 is mi", id="empty"),
        pytest.param(
            lambda p: p.shard.unlink(),
            SHARD + "missing: missing, with 6",
            SHARD + "missing: missing, with 6",
            ANYTHING,
            id="gone",
        ),
        pytest.param(Patient.swap, ANYTHING, "{second}: swapped: holds the bytes of {first}", ANYTHING, id="swapped"),
        pytest.param(
            Patient.rename, "{folder}/x: extra", "{folder}/x: renamed: is {shard} under another", ANYTHING, id="renamed"
        ),
        pytest.param(lambda p: (p.root / INDEX_NAME).unlink(), INDEX + "missing", INDEX + "missing", ANYTHING, id="no index"),
        pytest.param(
            lambda p: shutil.copy(p.other_index, p.root / INDEX_NAME), ANYTHING, INDEX + "changed", ANYTHING, id="other index"
        ),
        pytest.param(
            lambda p: os.truncate(p.root / INDEX_NAME, 99),
            INDEX + "changed: 99 by",
            INDEX + "changed: 99 by",
            ANYTHING,
            id="cut index",
        ),
        pytest.param(
            Patient.claim_a_huge_picture,
            NOTHING,
            CHANGED,
            SHARD + "record: sample 3 at byte {offset:,}: picture does not decode: Image size (10000000000 pixels) exceeds",
            id="huge picture",
        ),
    ],
)
def test_each_damage_is_named_and_repaired(
    patient: Patient, damage: Callable[[Patient], object], quick: str | None, full: str, deep: str
) -> None:
    before = hash_files(patient.root)
    words = {
        "shard": patient.row["shard"],
        "offset": patient.offset,
        "folder": str(patient.row["shard"]).split("/")[0],
        "first": read_manifest(patient.root).shards[0].path,
        "second": read_manifest(patient.root).shards[1].path,
    }
    damage(patient)
    for depth, expected in (("quick", quick), ("full", full), ("deep", full), ("deep", deep)):
        found = verify(patient.root, depth)
        if expected is NOTHING:
            assert found == []
        else:
            assert any(line.startswith(expected.format(**words)) for line in found), found

    lines = repair(patient.root)
    assert lines
    assert all("SHA-256" in line for line in lines)
    assert hash_files(patient.root) == before
    assert verify(patient.root, "deep") == []
    assert repair(patient.root) == []


def test_every_damage_at_once_is_repaired_and_what_belongs_to_nobody_stays(patient: Patient) -> None:
    before = hash_files(patient.root)
    patient.swap()
    patient.rename()
    (patient.root / INDEX_NAME).write_bytes(b"")
    paths = [shard.path for shard in read_manifest(patient.root).shards if shard.path != patient.row["shard"]]
    (patient.root / paths[-1]).unlink()
    os.truncate(patient.root / paths[-2], 7)
    (patient.root / "notes.txt").write_text("mine")
    lines = repair(patient.root, extras=("notes.txt",))
    assert sum("put back from" in line for line in lines) == 3
    assert sum("drawn again" in line for line in lines) == 3
    assert any("put back from train/x, " in line or "put back from test/x, " in line for line in lines)
    assert hash_files(patient.root) == before | {"notes.txt": hashlib.sha256(b"mine").hexdigest()}


@pytest.mark.parametrize("link", [Path.symlink_to, shutil.copyfile], ids=["link", "copy"])
def test_a_shard_that_is_another_one_is_drawn_again(patient: Patient, link: Callable[[Path, Path], None]) -> None:
    before = hash_files(patient.root)
    one, other = (patient.root / shard.path for shard in read_manifest(patient.root).shards[:2])
    one.unlink()
    link(one, other) if link is Path.symlink_to else link(other, one)
    (line,) = repair(patient.root)
    assert line.startswith(f"{one.relative_to(patient.root)}: drawn again")
    assert hash_files(patient.root) == before
    assert not one.is_symlink()


@pytest.mark.parametrize("by", ["shard", "sample", "label", None])
@pytest.mark.parametrize("what", ["one shard", "index", "everything"])
def test_a_dataset_is_repaired_however_it_is_split(
    generated_dataset: CaptchaDataset, tmp_path: Path, by: str | None, what: str
) -> None:
    root = tmp_path / "dataset"
    if by is None:
        shutil.copytree(generated_dataset.root, root)
    else:
        root.mkdir()
        split_dataset(generated_dataset, SplitRule.model_validate({"test_size": 0.2, "by": by, "seed": 3}), root)
    before = hash_files(root)
    shards = [shard.path for shard in read_manifest(root).shards]
    for path in {"one shard": shards[1:2], "index": [INDEX_NAME], "everything": [*shards, INDEX_NAME]}[what]:
        (root / path).unlink()
    repair(root)
    assert hash_files(root) == before


def test_good_files_are_not_touched_by_a_repair(patient: Patient) -> None:
    patient.flip(20)
    before = {path: path.stat() for path in patient.root.rglob("*") if path.is_file() and path != patient.shard}
    repair(patient.root)
    for path, stat in before.items():
        assert (path.stat().st_ino, path.stat().st_mtime_ns) == (stat.st_ino, stat.st_mtime_ns)


def test_a_repaired_file_is_as_open_to_others_as_the_manifest(patient: Patient) -> None:
    folder = patient.shard.parent
    modes = {path: path.stat().st_mode for path in (folder, patient.shard)}
    (patient.root / MANIFEST_NAME).chmod(modes[patient.shard])
    patient.root.chmod(modes[folder])
    patient.shard.unlink() if folder == patient.root else shutil.rmtree(folder)
    umask = os.umask(0o077)
    try:
        repair(patient.root)
    finally:
        os.umask(umask)
    assert {path: path.stat().st_mode for path in modes} == modes


def rewrite_manifest(root: Path, **changes: object) -> None:
    fields = dict(read_manifest(root)) | changes
    del fields["dataset_id"]
    write_manifest(root, Manifest.create(**fields))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param(
            {"drawing_version": 1}, "tiny was drawn by drawing version 1, this is 2: check out the commit", id="version"
        ),
        pytest.param(
            {"tool_versions": {"pillow": "12.0"}},
            r"and was left as it is. It was drawn with pillow 12.0, here 13.\S+ install",
            id="tool",
        ),
    ],
)
def test_what_cannot_be_redrawn_to_the_byte_is_left_as_it_is(patient: Patient, changes: dict[str, object], message: str) -> None:
    # Another SHA-256 than the samples give stands for what another tool would have written.
    shards = read_manifest(patient.root).shards
    rewrite_manifest(patient.root, shards=(shards[0].model_copy(update={"sha256": "0" * 64}), *shards[1:]), **changes)
    before = hash_files(patient.root)
    (line,) = repair(patient.root, failed=(shards[0].path,))
    assert re.search(message, line)
    assert hash_files(patient.root) == before


def test_a_font_that_is_not_here_is_looked_for_in_the_project(patient: Patient) -> None:
    manifest = read_manifest(patient.root)
    rewrite_manifest(patient.root, spec=manifest.spec.model_copy(update={"fonts": ("other.ttf",)}))
    patient.shard.unlink()
    (line,) = repair(patient.root, failed=(str(patient.row["shard"]),))
    assert "fonts names 'other.ttf', which is not in " in line
    assert line.endswith(": run the command in the folder of the project that drew tiny, whose fonts/ has its fonts")


def test_a_file_that_can_be_drawn_again_is_repaired_beside_one_that_cannot(patient: Patient) -> None:
    manifest = read_manifest(patient.root)
    before = hash_files(patient.root)
    # As another version of pyarrow would have written it.
    rewrite_manifest(patient.root, index=manifest.index.model_copy(update={"sha256": "0" * 64}))
    patient.shard.unlink()
    (patient.root / manifest.shards[1].path).rename(patient.root / "moved")
    back, drawn, failed = repair(patient.root, failed=(INDEX_NAME,))
    assert back.startswith(f"{manifest.shards[1].path}: put back from moved, ")
    assert drawn.startswith(f"{patient.row['shard']}: drawn again, ")
    assert (
        f"has other bytes than the manifest says, and was left as it is. `dvc pull --force {patient.root / INDEX_NAME}`" in failed
    )
    assert {name: sha for name, sha in hash_files(patient.root).items() if name != MANIFEST_NAME} == {
        name: sha for name, sha in before.items() if name != MANIFEST_NAME
    }


@pytest.mark.parametrize("name", ["shard", INDEX_NAME])
def test_a_folder_in_the_place_of_a_file_is_left_and_the_rest_repaired(patient: Patient, name: str) -> None:
    before = hash_files(patient.root)
    path = patient.shard if name == "shard" else patient.root / name
    other = patient.root / next(s.path for s in read_manifest(patient.root).shards if patient.root / s.path != path)
    path.unlink()
    path.mkdir()
    other.unlink()
    repaired, failed = repair(patient.root, failed=(path.relative_to(patient.root).as_posix(),))
    assert ": drawn again, " in repaired
    assert failed.endswith(" samples: move the folder away")
    path.rmdir()
    repair(patient.root)
    assert hash_files(patient.root) == before


def test_a_file_that_cannot_be_read_is_drawn_again(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    before = hash_files(patient.root)
    digest, bad_inode = hashlib.file_digest, patient.shard.stat().st_ino

    def fail(file: BufferedReader, kind: str) -> object:
        if os.fstat(file.fileno()).st_ino == bad_inode:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return digest(file, kind)

    monkeypatch.setattr(hashlib, "file_digest", fail)
    (line,) = repair(patient.root)
    assert line.startswith(f"{patient.row['shard']}: drawn again, ")
    assert hash_files(patient.root) == before


def test_of_two_copies_of_a_missing_shard_one_is_put_back_and_the_other_stays(patient: Patient) -> None:
    before = hash_files(patient.root)
    for name in ("one", "two"):
        shutil.copy(patient.shard, patient.root / name)
    patient.shard.unlink()
    (line,) = repair(patient.root, extras=("one",))
    assert f"{patient.row['shard']}: put back from two, " in line
    assert hash_files(patient.root) == before | {"one": before[str(patient.row["shard"])]}


def test_an_index_that_is_wrong_under_its_right_hash_is_not_called_good(patient: Patient) -> None:
    (patient.root / INDEX_NAME).write_bytes(b"PAR1")
    rewrite_manifest(patient.root, index=FileEntry.of(patient.root, INDEX_NAME, 60))
    (line,) = repair(patient.root, failed=(INDEX_NAME,))
    assert "not a readable Parquet file" in line


def test_a_manifest_that_contradicts_itself_proves_nothing(patient: Patient) -> None:
    path = patient.root / MANIFEST_NAME
    path.write_text(path.read_text(encoding="utf-8").replace('"seed": 7', '"seed": 8'), encoding="utf-8")
    before = hash_files(patient.root)
    with pytest.raises(
        UserError, match=r"dataset_id is .*: nothing can be verified with it: `rm -f .*/manifest.json`, then fetch or"
    ):
        repair(patient.root)
    assert hash_files(patient.root) == before


def test_a_folder_in_the_place_of_a_manifest_is_for_its_owner_to_move(patient: Patient) -> None:
    path = patient.root / MANIFEST_NAME
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match=r"with it: move that folder away, then fetch or draw the dataset again"):
        repair(patient.root)


def test_a_pipe_in_the_place_of_a_manifest_is_not_waited_for(patient: Patient) -> None:
    (patient.root / MANIFEST_NAME).unlink()
    os.mkfifo(patient.root / MANIFEST_NAME)
    with pytest.raises(UserError, match=r"is not a regular file: .*with it: `rm -f .*`, then fetch or draw"):
        repair(patient.root)


def test_a_manifest_that_is_not_there_need_not_be_removed(patient: Patient) -> None:
    (patient.root / MANIFEST_NAME).unlink()
    with pytest.raises(UserError, match=r"manifest.json: is missing, [^`]*: run `dvc repro`, [^`]*`dvc pull[^`]*`[^:]*$"):
        repair(patient.root)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ('"format_version": 2', r"install a newer release .*: format_version is 2; expected 1$"),
        ('"format_version": 0', r": nothing can be verified with it: `rm -f "),
        ('"zz": 1, "format_version": 1', r"zz is not a known key; .*: nothing can be verified with it: `rm -f "),
    ],
)
def test_only_the_manifest_of_a_newer_release_is_not_to_be_removed(patient: Patient, written: str, message: str) -> None:
    path = patient.root / MANIFEST_NAME
    path.write_text(path.read_text(encoding="utf-8").replace('"format_version": 1', written), encoding="utf-8")
    with pytest.raises(UserError, match=message):
        repair(patient.root)


def test_verify_says_that_a_repair_does_not_cure_what_was_written_wrong(patient: Patient) -> None:
    rows = read_index(patient.root / INDEX_NAME)
    labels = pa.array(["A" * 3, *rows["label"].to_pylist()[1:]])
    replace_index(patient.root, rows.set_column(rows.schema.get_field_index("label"), rows.schema.field("label"), labels))
    assert (verify(patient.root, "full"), repair(patient.root)) == ([], [])
    done = run_command("verify", patient.root, "--depth", "deep", cwd=patient.root.parent)
    assert done.returncode == 1
    assert "so they were written like this, and `captcha-registry repair` changes nothing: draw the" in done.stdout


def test_a_folder_that_is_empty_after_a_repair_is_removed(patient: Patient) -> None:
    before = hash_files(patient.root)
    (patient.root / "train").rename(patient.root / "aside")
    (patient.root / "train").mkdir()
    (patient.root / "aside").rename(patient.root / "train/train")
    repair(patient.root)
    assert (hash_files(patient.root), verify(patient.root, "deep")) == (before, [])


@pytest.mark.parametrize(
    ("put", "message"),
    [
        (lambda path: path.symlink_to("nowhere"), "train is a symbolic link that leads nowhere: mount what it leads to, or"),
        (lambda path: path.write_text("x"), "train is a file; expected a folder: move it away"),
    ],
    ids=["broken link", "file"],
)
def test_what_is_no_folder_where_one_belongs_is_named_and_the_rest_repaired(
    patient: Patient, put: Callable[[Path], object], message: str
) -> None:
    shards = [shard.path for shard in read_manifest(patient.root).shards]
    shutil.rmtree(patient.root / "train")
    put(patient.root / "train")
    (patient.root / next(path for path in shards if path.startswith("test"))).unlink()
    extras = ("train",) if (patient.root / "train").is_file() else ()
    lines = repair(patient.root, failed=tuple(path for path in shards if path.startswith("train")), extras=extras)
    assert [message in line for line in lines] == [False] + [True] * (len(lines) - 1)


def test_two_repairs_at_once_are_one_too_many(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    (patient.root.parent / "link").symlink_to(patient.root)
    verify_now = repair_module.verify_dataset

    def verify_during_another_repair(root: Path, depth: Depth, executor: Executor, *, splits: list[str] | None) -> list[Problem]:
        with pytest.raises(UserError, match=r"another repair of .*link is at work: wait for it to end, or stop it"):
            repair(patient.root.parent / "link")
        return verify_now(root, depth, executor, splits=splits)

    monkeypatch.setattr(repair_module, "verify_dataset", verify_during_another_repair)
    patient.flip(20)
    assert len(repair(patient.root)) == 1


def test_what_a_killed_repair_left_is_cleared(patient: Patient) -> None:
    before = hash_files(patient.root)
    (patient.root / ".repair/new/train").mkdir(parents=True)
    (patient.root / ".repair/new/train/00000.tfrecord").write_bytes(b"half")
    (patient.root / ".repair/empty").mkdir()
    assert any(line.startswith(".repair/new/train/00000.tfrecord: extra") for line in verify(patient.root, "quick"))
    advice = "a repair is at work, or was killed: wait for its end, or run `captcha-registry repair tiny`, which clears it away\n"
    assert run_command("verify", "tiny", cwd=patient.root.parent).stdout.endswith(advice)
    assert repair(patient.root) == []
    assert hash_files(patient.root) == before


def test_nothing_is_left_of_a_stopped_repair_whose_tasks_are_still_at_work(patient: Patient) -> None:
    def write_files(folder: Path) -> None:
        with suppress(FileNotFoundError):
            for number in range(20_000):
                (folder / str(number)).touch()

    def stop() -> None:
        with repair_module._open_staging(patient.root) as staging:  # noqa: SLF001 - what stops a repair comes at any moment
            staging.mkdir()
            executor.submit(write_files, staging)
            wait_until((staging / "100").exists, "work")
            raise UserError("stopped")

    with ThreadPoolExecutor(1) as executor, pytest.raises(UserError, match="stopped"):
        stop()
    assert not (patient.root / ".repair").exists()


def test_a_dataset_in_a_project_without_git_is_repaired(patient: Patient) -> None:
    (patient.root.parent / ".dvc").mkdir()
    (patient.root.parent / ".dvc/config").touch()
    patient.flip(20)
    done = run_command("repair", "tiny", cwd=patient.root.parent)
    assert (done.returncode, done.stderr) == (0, "")


def test_settings_that_dvc_cannot_read_are_told_as_its_cache_could_not_be_repaired(patient: Patient) -> None:
    (patient.root.parent / ".dvc").mkdir()
    (patient.root.parent / ".dvc/config").write_text("[core\n")
    patient.flip(20)
    done = run_command("repair", "tiny", cwd=patient.root.parent)
    assert done.returncode == 2
    assert done.stderr.startswith("error: DVC cannot read its settings, this project's or your own (config file error: Inv")


def test_the_command_tells_by_its_exit_code(patient: Patient) -> None:
    folder = patient.root.parent
    done = run_command("verify", "tiny", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("tiny: nothing wrong at depth full, ")

    patient.flip(20)
    done = run_command("verify", "tiny", "--depth", "deep", cwd=folder)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines()[0].startswith(f"tiny/{patient.row['shard']}: ")
    assert "2 problems at depth deep" in done.stdout.splitlines()[-1]
    assert " s: `captcha-registry repair tiny` repairs it, or tells how; if it was fetched, the same `captcha" in done.stdout

    done = run_command("verify", "tiny", "--json", cwd=folder)
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert (told["path"], told["depth"], told["ok"]) == ("tiny", "full", False)
    assert [(problem["path"], problem["kind"]) for problem in told["problems"]] == [(patient.row["shard"], "changed")]

    done = run_command("repair", "tiny", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{patient.row['shard']}: drawn again, 6 samples, with the SHA-256 ")
    done = run_command("repair", "tiny", cwd=folder)
    assert done.stdout.startswith("tiny: nothing to repair at depth full, ")

    (folder / "tiny/notes.txt").touch()
    assert run_command("verify", "tiny", cwd=folder).stdout.endswith(" s: move what is not of the dataset out of tiny\n")
    done = run_command("repair", "tiny", cwd=folder)
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "tiny/notes.txt: left alone, the manifest does not name it"
    assert lines[1].startswith("tiny: nothing to repair at depth full; 1 left alone: move them out of the folder, ")

    patient.flip(20)
    shards = [shard.path for shard in read_manifest(patient.root).shards if shard.path != patient.row["shard"]]
    (folder / "tiny" / shards[0]).unlink()
    (folder / "tiny" / shards[0]).mkdir()
    done = run_command("repair", "tiny", "--json", cwd=folder)
    assert (done.returncode, done.stderr) == (2, "")
    told = json.loads(done.stdout)
    assert (told["path"], told["depth"], told["ok"], told["left_alone"]) == ("tiny", "full", False, ["notes.txt"])
    assert [[file["path"] for file in told[key]] for key in ("repaired", "not_repaired")] == [[patient.row["shard"]], [shards[0]]]
    done = run_command("repair", "tiny", cwd=folder)
    assert (done.returncode, done.stderr) == (2, "")
    lines = done.stdout.splitlines()
    assert lines[0] == f"{shards[0]}: NOT repaired: a folder; expected a file with 6 samples: move the folder away"
    assert lines[2].startswith("tiny: 0 repaired, 1 NOT repaired; 1 left alone: move them out of the folder, ")


@pytest.mark.parametrize("command", ["verify", "repair"])
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nothing", "nothing is not a folder: name the folder of a dataset"),
        ("", "a path is empty, perhaps because a variable is not set; expected a path, such as . for this folder"),
        (".", ". holds no dataset, neither manifest.json nor index.parquet: name the folder that does"),
        ("s3://bucket/digits", "s3:/bucket/digits is not a folder of this machine: copy the dataset here and name"),
    ],
)
def test_a_place_without_a_dataset_is_refused(tmp_path: Path, command: str, path: str, message: str) -> None:
    done = run_command(command, path, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {message}")


@pytest.mark.parametrize("command", ["verify", "repair"])
def test_a_split_is_told_which_dataset_it_is_of(patient: Patient, command: str) -> None:
    done = run_command(command, f"{patient.root}/train", cwd=patient.root)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {patient.root}/train is a part of the dataset in {patient.root}: name that folder\n"
    done = run_command(command, ".", cwd=patient.root / "train")
    assert done.stderr == f"error: . is a part of the dataset in {patient.root}: name that folder\n"


def test_a_split_on_another_disk_is_repaired(patient: Patient) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as disk:
        train, damaged = patient.root / "train", patient.root / patient.row["shard"]
        assert damaged.parent == train
        before = hash_files(patient.root)
        shutil.move(train, f"{disk}/train")
        train.symlink_to(f"{disk}/train")
        assert Path(disk).stat().st_dev != patient.root.stat().st_dev
        damaged.write_bytes(b"damage")
        (line,) = repair(patient.root)
        assert ": drawn again, 6 samples" in line
        assert before.items() >= hash_files(patient.root).items()
        assert hash_files(train) == {path.name: before[f"train/{path.name}"] for path in Path(disk, "train").iterdir()}


def test_what_a_link_in_the_place_of_work_leads_to_is_left_alone(patient: Patient, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/kept").touch()
    (patient.root / STAGING_NAME).symlink_to(tmp_path / "other")
    patient.cut(0)
    assert len(repair(patient.root)) == 1
    assert (tmp_path / "other/kept").is_file()


def test_a_folder_that_cannot_be_written_to_is_named_and_the_rest_repaired(
    patient: Patient, public_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPTCHA_REGISTRY_CACHE", str(public_folder / "cache"))
    (public_folder / "cache").mkdir()
    # This project may be where nobody else can read it.
    font = shutil.copy(DEFAULT_FONTS[0], public_folder)
    monkeypatch.setattr("captcha_registry.generation.drawing.DEFAULT_FONTS", [font])
    root = Path(shutil.move(patient.root, public_folder / "tiny"))
    shards = {folder: min((root / folder).iterdir()) for folder in ("train", "test")}
    for path in shards.values():
        path.write_bytes(b"damage")
    if os.geteuid() == 0:
        # The user as whom it runs below; everybody else is that user already.
        for path in public_folder.rglob("*"):
            os.chown(path, NOBODY, NOBODY)
    (root / "train").chmod(0o555)
    with as_another_user():
        lines = repair(root, failed=(f"train/{shards['train'].name}",))
    assert lines[0].startswith(f"test/{shards['test'].name}: drawn again")
    assert re.fullmatch(rf"train/.*: Permission denied in {root}/train: make {root}/train writable, or work in .*", lines[1])


@pytest.mark.parametrize("command", ["verify", "repair"])
def test_a_name_can_neither_steer_a_terminal_nor_forge_a_line(patient: Patient, command: str) -> None:
    (patient.root / "train/\x1b]0;owned\a\x1b[31mred\nnothing wrong").touch()
    done = run_command(command, patient.root, cwd=patient.root)
    assert done.returncode == 1
    assert not {"\x1b", "\a"} & {*done.stdout}
    assert "train/]0;owned[31mred\\nnothing wrong: " in done.stdout.splitlines()[0]


def test_the_command_shows_the_first_of_many_problems(patient: Patient) -> None:
    for shard in read_manifest(patient.root).shards:
        os.truncate(patient.root / shard.path, 0)
    done = run_command("verify", patient.root, "--depth", "deep", cwd=patient.root)
    assert done.stdout.splitlines()[-2] == f"... and {10 * 7 - 20} more: --json lists all"
    told = json.loads(run_command("verify", patient.root, "--depth", "deep", "--json", cwd=patient.root).stdout)
    assert len(told["problems"]) == 70
