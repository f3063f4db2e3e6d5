"""Runs all tests of the official Python SDKs against a gateway over the mock upstream.

`TOLLGATE_BIN` and `MOCK_BIN` name the two executables; arguments, if any, are parts of the names of tests to run.
"""

import os
import sys
import unittest

# In this order: the last one looks at what all others left behind.
MODULES = [
    "test_answers",
    "test_streams",
    "test_errors",
    "test_limits",
    "test_usage",
    "test_dialects",
    "test_matrix",
    "test_conformance",
    "test_media",
    "test_simulator",
    "test_ledger",
]


def main():
    for name in list(os.environ):
        # Neither a proxy nor an SDK's setting of this machine may stand between the tests and the gateway.
        if name.lower().endswith("_proxy") or name.startswith(("OPENAI_", "ANTHROPIC_", "GEMINI_", "GOOGLE_")):
            del os.environ[name]
    from gateway import Bed

    loader = unittest.TestLoader()
    if sys.argv[1:]:
        loader.testNamePatterns = [f"*{part}*" for part in sys.argv[1:]]
    suite = loader.loadTestsFromNames(MODULES)
    try:
        Bed.start()
        result = unittest.TextTestRunner(verbosity=2).run(suite)
    finally:
        Bed.stop()
    # A test with several failed parts is one failed test.
    failed = {getattr(test, "test_case", test).id() for test, _ in result.failures + result.errors}
    passed = result.testsRun - len(failed)
    print(f"{passed} passed, {len(failed)} failed")
    return 0 if passed > 0 and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
