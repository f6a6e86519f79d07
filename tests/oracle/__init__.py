"""The oracle: random operations are recorded, and every moment of the trace is held against what was really there.

system      the system calls that Python has no words for
hands       what the execution of any operation needs; data, names, attributes,
            mapped, requests, programs: the operations themselves, with real system calls
grammar     which operation comes next: chance, seeded, with an eye on the tree as it stands
truth       a real directory, read so that nothing in it changes
actors      the processes that do the operations: forked, threaded, unprivileged, chrooted, in namespaces
worker      the program that is recorded: operation, mark, truth, and so on
compare     the trace against the truth, moment by moment
trials      one recording with its verdict; filesystems to do it on
racing      the other way: processes that race, of which only the end is compared
shrink      a wrong moment's script, made small
__main__    `python -m tests.oracle`: many trials, and a report
"""
