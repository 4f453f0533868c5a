"""Exit 0 if this environment has a Detectron2 that we did not make: it is left alone."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "detectron2"))
from d2build.installed import environment_folders, find_foreign

found = find_foreign(environment_folders())
if found is not None:
    print(f"using the Detectron2 that is installed: {found}")
sys.exit(found is None)
