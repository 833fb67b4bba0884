"""The chart libraries that pages carry, byte for byte as npm has them; all are under the licence BSD-3-Clause.

`make charts` fetches the versions below again, and the licences of all that they hold (needs npm).
"""

import hashlib
import subprocess
import tempfile
from pathlib import Path

from captcha_registry.workspace import write_atomically

# In the order in which a page loads them.
VERSIONS = {"vega": "6.4.0", "vega-lite": "6.5.0", "vega-embed": "7.3.0"}
FOLDER = Path(__file__).parent / "vendor"
SUMS_NAME = "SHA256SUMS"
LICENSES_NAME = "LICENSES.txt"


def read_scripts() -> list[str]:
    """Read the libraries, without the lines that send a browser's tools for what is not here."""
    scripts = [(FOLDER / f"{package}.min.js").read_text(encoding="utf-8") for package in VERSIONS]
    return [script.partition("\n//# sourceMappingURL=")[0] for script in scripts]


def renew() -> None:
    """Fetch the libraries, and write them with their licences and hashes."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = [f"{package}@{version}" for package, version in VERSIONS.items()]
        subprocess.run(["npm", "install", "--ignore-scripts", "--silent", "--prefix", folder, *wanted], check=True)
        modules = Path(folder) / "node_modules"
        found = {f"{package}.min.js": (modules / package / "build" / f"{package}.min.js").read_bytes() for package in VERSIONS}
        licenses = sorted(path for path in modules.glob("**/LICENSE*") if path.is_file())
        texts = [f"{path.parent.relative_to(modules)}\n\n{path.read_text(encoding='utf-8').strip()}\n" for path in licenses]
    found[LICENSES_NAME] = f"\n{'-' * 80}\n".join(texts).encode()
    sums = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(found.items()))
    for name, content in {**found, SUMS_NAME: sums.encode()}.items():
        write_atomically(FOLDER / name, content)


if __name__ == "__main__":
    renew()
