"""A soak: an alliance of real processes that runs job after job while processes are killed and connections cut.

`python -m tests.soak --minutes 120 --seed 7` is the long form; the tests run a short one.
"""
