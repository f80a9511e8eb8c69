from __future__ import annotations

import subprocess
import sys

_CODE = """
import sys
from ecd_deploy.compat.scipy import special
import numpy as np
assert special.betaincinv(2.0, 3.0, 0.5) == __import__("scipy.special").special.betaincinv(2.0, 3.0, 0.5)
deferred = ("numpy.f2py.crackfortran", "numpy.ma.core", "numpy.testing._private.utils")
assert not [name for name in deferred if name in sys.modules]
np.testing.assert_array_equal(np.ma.masked_equal([1, 2], 2).compressed(), [1])
from numpy import f2py, ma
assert callable(f2py.run_main) and ma is np.ma and "numpy.ma.core" in sys.modules
"""


def test_what_nothing_uses_is_not_loaded_with_the_special_functions_and_is_there_when_asked_for() -> None:
    subprocess.run([sys.executable, "-c", _CODE], check=True)


def test_packages_that_are_loaded_already_stay_as_they_are() -> None:
    code = "import numpy.ma as before, numpy.ma\nimport ecd_deploy.compat.scipy\nassert numpy.ma is before\n"
    code += "import sys\nassert sys.modules['numpy.ma'] is before and before.masked is numpy.ma.masked"
    subprocess.run([sys.executable, "-c", code], check=True)
