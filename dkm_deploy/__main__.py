"""``python -m dkm_deploy`` is ``dkm-deploy``."""

import sys

from dkm_deploy.cli import main

sys.exit(main())
