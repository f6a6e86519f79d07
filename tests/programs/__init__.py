"""Programs no one here wrote, recorded at their usual work and compared with what they left.

    program.py       what a Program is, and running one: its moments and its end against the truth
    filesystems.py   a fresh filesystem of each kind, mounted
    everyday.py      git, sqlite, tar, rsync, cp, sed, pip, npm, a C build, compileall, LMDB
    stress.py        stress-ng's filesystem stressors
    fio.py           fio, an engine at a time, with verification on
    postgres.py      PostgreSQL, and a server started from a moment in the middle
    __main__.py      the long runs, as a table and as JSON

`tests/system/test_programs.py` runs the quick sizes.
"""
