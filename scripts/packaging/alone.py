"""Whether a bundle loads with nothing but what its image will hold.

The toolbox holds far more than the image, and a pickled model may import any of it.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from scripts.packaging.parity import NotProven

# Imports of what stands in no line of the lock fail as they would in the image.
_CHILD = """
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

bundle, locked = Path(sys.argv[1]), set(sys.argv[2].split(","))
outside = {
    module
    for module, distributions in packages_distributions().items()
    if not locked & {name.lower().replace("_", "-").replace(".", "-") for name in distributions}
}

class Locked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in outside - {"scoring", "model"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Locked())
sys.path[:0] = [str(bundle), str(bundle / "code")]
from scoring.score import Scorer
from scoring.settings import Settings

try:
    Scorer.load(Settings(model_dir=bundle / "model"))
except Exception as error:
    raise SystemExit(str(error.__cause__ or error))
"""


def prove_alone(bundle: Path) -> None:
    """Load the bundle and answer its sample in a process that sees only the locked packages.

    Raises NotProven with what that process said last.
    """
    lock = (bundle / "requirements.txt").read_text("utf-8")
    names = re.findall(r"^([A-Za-z0-9._-]+)==", lock, re.MULTILINE)
    locked = ",".join(re.sub(r"[-_.]+", "-", name.lower()) for name in names)
    done = subprocess.run(
        [sys.executable, "-I", "-W", "ignore", "-c", _CHILD, str(bundle), locked],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise NotProven(f"with the packages of the scoring image alone: {said[:300]}")
