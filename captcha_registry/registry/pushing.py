"""The objects of a version as its commit names them, and the remotes on which readers look for them.

What is checked out does not matter here, nor do remotes that only this machine's settings name: others have the commit alone.
"""

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

from dvc.config import Config
from dvc.data_cloud import Remote
from dvc.fs import get_cloud_fs
from dvc.output import Output
from dvc.repo import Repo
from dvc_data.callbacks import TqdmCallback
from dvc_data.hashfile.db import HashFileDB
from dvc_data.index import DataIndexDirError
from dvc_objects.errors import ObjectFormatError

from captcha_registry.errors import MAKE_OR_PULL, UserError
from captcha_registry.registry.fetching import Checksum, kept_file_systems
from captcha_registry.registry.repository import Published, open_revision

# What leads to another server than the url alone.
SERVERS = ("endpointurl", "oss_endpoint", "port")

AGAIN = "nothing was tagged: fix that and run the same command again"


@dataclass(frozen=True, slots=True)
class Objects:
    """What of a version belongs on one remote.

    Attributes:
        cache: DVC's cache, which has it.
        remote: where this checkout pushes to.
        seen: where readers look: the same, unless settings of this checkout or its user have another address.
    """

    cache: HashFileDB
    remote: HashFileDB
    seen: HashFileDB
    hashes: set[str]


def find_outputs(repo: Repo, path: str) -> list[Output]:
    """List the outputs in a folder, or the one that it is, in the workspace or at the revision that the repository shows."""
    folder = repo.fs.join(repo.root_dir, path)
    return [out for out in repo.index.outs if repo.fs.isin_or_eq(out.fs_path, folder)]


def name_output(out: Output) -> str:
    """Return the path of an output inside the repository."""
    return "/".join(out.index_key[1])


def find_objects(repo: Repo, published: Published) -> list[Objects]:
    """List all objects of a version by the remotes on which readers will look for them.

    Raises:
        UserError: an output is kept from readers, or DVC's cache lacks an object.
    """
    groups: dict[tuple[str, str], Objects] = {}
    with open_revision(repo, published.revision):
        config = _read_config(repo)
        for out in find_outputs(repo, published.path):
            _require_pushed(out)
            name = _find_remote(config, out, Path(repo.scm.root_dir))
            remote = repo.cloud.get_remote(name)
            seen = _find_seen(repo, config, remote)
            kept_file_systems.update((remote.fs, seen.fs))
            if remote.fs.version_aware:
                raise UserError(
                    f"the DVC remote {name!r} is version_aware, so its files may be overwritten; expected a plain one"
                )
            plain = out.hash_name == "md5"
            to, at = (place.odb if plain else place.legacy_odb for place in (remote, seen))
            group = Objects(out.cache, to, at, set())
            if Path(group.remote.path).resolve() == Path(group.cache.path).resolve():
                raise UserError(f"the DVC remote {name!r} is DVC's own cache of this checkout: expected a folder of its own")
            groups.setdefault((name, out.hash_name), group).hashes.update(_list_hashes(repo, out))
    for group in groups.values():
        _require_none([value for value in sorted(group.hashes) if not group.cache.exists(value)], group)
    return list(groups.values())


def require_remotes(groups: list[Objects]) -> None:
    """Refuse remotes that cannot be asked for an object, before anything is pushed.

    Raises:
        UserError: says which, and why not.
    """
    for group in groups:
        for place in (group.remote, group.seen):
            # Some remotes answer so where an object is missing.
            with _explain_errors(place, "asked"), suppress(PermissionError):
                try:
                    place.fs.info(place.oid_to_path(min(group.hashes)))
                except FileNotFoundError as error:
                    if problem := _find_problem(error):
                        raise problem from None


def require_sound_cache(groups: list[Objects], folder: Path) -> None:
    """Refuse objects whose bytes in DVC's cache are not those of their names, as a checkout would bring the damage back.

    Hard links to files of `folder`, which was verified, are not read again.

    Raises:
        UserError: names one of them.
    """
    verified = {_identify(path) for path in (folder, *folder.rglob("*")) if path.exists()}
    for group in groups:
        others = [value for value in sorted(group.hashes) if _identify(Path(group.cache.oid_to_path(value))) not in verified]
        _require_none(_find_damaged(group, others), group)


def _identify(path: Path) -> tuple[int, int]:
    return (status := path.stat()).st_dev, status.st_ino


def push_objects(groups: list[Objects]) -> None:
    """Push what the remotes lack or have cut, then look for all of it there.

    Raises:
        UserError: a remote does not take it.
    """
    for group in groups:
        with _explain_errors(group.remote, "written to"):
            lacking = find_lacking(group, group.remote)
            _require_none(_find_damaged(group, lacking), group)
            # Listings last, as DVC takes a folder whose listing is at the remote for complete.
            for part in ([v for v in lacking if not v.endswith(".dir")], [v for v in lacking if v.endswith(".dir")]):
                _push(group, part)
            if lacking := find_lacking(group, group.seen):
                led = "" if group.seen is group.remote else f", as settings that are not in Git push to {group.remote.path}"
                raise UserError(
                    f"{len(lacking)} of {len(group.hashes)} objects are missing or incomplete on the remote, such as "
                    f"{group.seen.oid_to_path(lacking[0])}{led}; {AGAIN}"
                )


def find_lacking(group: Objects, place: HashFileDB) -> list[str]:
    """List the objects that are not at a place, or with another size than here."""
    hashes = sorted(group.hashes)
    found = place.fs.info([place.oid_to_path(value) for value in hashes], return_exceptions=True)
    sizes = [group.cache.fs.size(group.cache.oid_to_path(value)) for value in hashes]
    checks = zip(hashes, found, sizes, strict=True)
    return [value for value, info, size in checks if isinstance(info, Exception) or info["size"] != size]


def _require_pushed(out: Output) -> None:
    """Refuse an output that DVC would keep from the remote."""
    name = name_output(out)
    if not out.use_cache:
        raise UserError(f"{name} has `cache: false`, so readers would not get it: remove that, run `dvc repro` and commit")
    if not out.can_push:
        raise UserError(f"{name} has `push: false`, so readers could not fetch it: remove that and commit")
    if out.stage.is_repo_import:
        raise UserError(f"{name} is imported, so DVC does not push it: make a copy of it in a stage, and publish that")


def _read_config(repo: Repo) -> dict[str, Any]:
    """Read .dvc/config as it was written; DVC would see a relative path from the root of the disk."""
    try:
        return dict(Config.load_file(repo.fs.join(repo.dvc_dir, Config.CONFIG), fs=repo.fs))
    except FileNotFoundError:
        return {}


def _find_seen(repo: Repo, config: Mapping[str, Any], remote: Remote) -> Remote:
    """Find a remote where Git says that it is, as readers do; this checkout may reach the same by another address."""
    own, urls = repo.config["remote"], {name: there["url"] for name, there in config["remote"].items() if "url" in there}
    # Keys and users that are set for another kind of address mean nothing at this one.
    same = {name for name, url in urls.items() if urlparse(str(own[name]["url"])).scheme == urlparse(url).scheme}
    places = {
        name: {key: config["remote"][name][key] for key in ("url", *SERVERS) if key in config["remote"][name]} for name in urls
    }
    name = remote.name.lower()
    for key in SERVERS if name in same else ():
        if key in own[name] and key not in places[name]:
            raise UserError(
                f".dvc/config has no {key} for remote {name!r}, while your own settings have {own[name][key]}, without which "
                f"readers look elsewhere: `dvc remote modify {name} {key} {shlex.quote(str(own[name][key]))}`, and commit"
            )
    if all(str(own[name].get(key)) == str(place) for name, there in places.items() for key, place in there.items()):
        return remote
    seen = {name: {**(own[name] if name in same else config["remote"][name]), **there} for name, there in places.items()}
    kind, options, path = get_cloud_fs({**repo.config, "remote": seen}, name=remote.name)
    return Remote(remote.name, path, kind(**options), tmp_dir=repo.site_cache_dir, **options)


def _find_remote(config: Mapping[str, Any], out: Output, root: Path) -> str:
    """Name the remote on which readers look for an output: they have the configuration in Git and no other."""
    name = out.remote or config.get("core", {}).get("remote")
    if name and (url := config.get("remote", {}).get(name.lower(), {}).get("url")):
        _require_reachable(config, name, url, root)
        return str(name)
    missing = f"has no url for the DVC remote {name!r}" if name else "names no default DVC remote"
    raise UserError(
        f".dvc/config {missing}, so readers could not fetch {name_output(out)} (.dvc/config.local and your own settings are "
        f"not theirs): add it with `dvc remote add {'' if out.remote else '--default '}NAME URL` and commit"
    )


def _require_reachable(config: Mapping[str, Any], name: str, url: str, root: Path) -> None:
    """Refuse an address that means something else, or nothing, to those who read the repository elsewhere."""
    where = f".dvc/config: the url of remote {name!r} is {url}"
    address = urlparse(url)
    if address.scheme == "remote":
        base = config.get("remote", {}).get(address.netloc.lower(), {}).get("url")
        if not base:
            raise UserError(
                f"{where}, and has no url for {address.netloc.rpartition('@')[2]!r}, so readers could not follow it: add that "
                "and commit"
            )
        _require_reachable(config, address.netloc, base, root)
    elif address.scheme == "file":
        path = url2pathname(address.path)
        raise UserError(f"{where}; expected a path: `dvc remote modify {name} url {shlex.quote(path)}`, and commit")
    elif "://" not in url and not Path(url).is_absolute():
        raise UserError(
            f"{where}, which others would look for in a folder of their own; expected an address, or a path from the root of "
            f"the disk that they have too: `dvc remote modify {name} url ADDRESS`, and commit"
        )
    elif "://" not in url and Path(url).resolve().is_relative_to(root.resolve()):
        raise UserError(f"{where}, in the checkout itself, which readers do not have: expected a folder outside, or an address")


def _list_hashes(repo: Repo, out: Output) -> list[str]:
    try:
        entries = [entry for _, entry in repo.index.data["repo"].iteritems(out.index_key[1])]
    except (DataIndexDirError, KeyError) as error:
        if problem := _find_problem(error.__cause__):
            raise UserError(
                f"DVC's cache does not have the list of files of {name_output(out)}, and the remote does not give it "
                f"({problem}): check address and rights"
            ) from None
        stage = ":".join(filter(None, (out.stage.path_in_repo, getattr(out.stage, "name", None))))
        from_folder = f"`dvc commit --force {shlex.quote(stage)}` takes it from the folder"
        cure = from_folder if (Path(repo.scm.root_dir) / name_output(out)).exists() else MAKE_OR_PULL
        raise UserError(
            f"neither DVC's cache nor the remote has what {name_output(out)} holds: {cure}; then run this again"
        ) from None
    return [entry.hash_info.value for entry in entries if entry.hash_info and entry.hash_info.value]


def _find_problem(last: BaseException | None) -> BaseException | None:
    """Find why the last place that DVC asked for a list did not give it; None if it is not there, or damaged.

    fsspec takes a web server that does not answer for one that does not have the file.
    """
    if last and not isinstance(last, FileNotFoundError | ObjectFormatError):
        return last
    while last := last and last.__cause__:
        if isinstance(last, OSError) and not isinstance(last, FileNotFoundError):
            return last
    return None


def _find_damaged(group: Objects, hashes: list[str]) -> list[str]:
    """List the objects whose bytes in DVC's cache are not those of their names; only MD5s of files can be compared."""
    sums = {value: Checksum("md5", value.removesuffix(".dir")) for value in hashes if group.cache.hash_name == "md5"}
    return [value for value, checksum in sums.items() if not checksum.fits(Path(group.cache.oid_to_path(value)))]


def _require_none(broken: list[str], group: Objects) -> None:
    if broken:
        raise UserError(
            f"DVC's cache has lost or damaged {len(broken)} of {len(group.hashes)} objects, such as "
            f"{group.cache.oid_to_path(broken[0])}: delete these files if they are there. Run `dvc pull --allow-missing` if "
            "the remote has them, else `captcha-registry repair FOLDER` for shards and index, else `dvc commit`. Then run "
            "this again"
        )


def _push(group: Objects, hashes: list[str]) -> None:
    if hashes:
        paths = [group.cache.oid_to_path(value) for value in hashes]
        with TqdmCallback(desc="push", unit="file") as callback:
            group.remote.add(paths, group.cache.fs, hashes, check_exists=False, callback=callback)


@contextmanager
def _explain_errors(remote: HashFileDB, what: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    # Every kind of remote has errors of its own, and no common ancestor.
    except Exception as error:  # noqa: BLE001 - its words are kept, but not its addresses
        problem = " ".join(str(error).split()) or type(error).__name__
        place = remote.fs.unstrip_protocol(remote.path)
        raise UserError(f"the remote at {place} could not be {what} ({problem}); {AGAIN}") from None
