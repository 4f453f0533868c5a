"""`python -m mask_rcnn_ext.tools` is the console command."""

import sys

from .cli import main

sys.exit(main())
