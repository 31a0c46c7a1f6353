"""What sandboxcore costs, measured beside what it is compared with: ``python -m benchmarks`` (or ``make bench``).

Every figure is taken in turns with its rivals, forth and back (A B C, C B A), in one run on one machine, and is to be read as a
ratio. Nothing in here is a test: the tests only check that a quick run produces a whole report.
"""
