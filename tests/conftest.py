"""The same generated examples at a desk as in continuous integration: a commit passes in both or in neither.

With KLINKET_TEST_SCALE they are drawn anew each time, which is how to look for what nobody thought of.
"""

from __future__ import annotations

import os

from hypothesis import settings

if "KLINKET_TEST_SCALE" not in os.environ:
    settings.load_profile("ci")  # Hypothesis's own: derandomized, without a deadline
