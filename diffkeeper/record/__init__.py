"""Recording: what lives only while a command runs. Makes journal frames, nothing downstream.

session    one recording from beginning to end, and the promise not to harm the command
place      the directory of the trace; earlier: what the recording that it replaces can tell
child      the command, and the guardian that never leaves it stopped
scope      roots, filesystems left alone; deep: paths longer than a system call takes
baseline   what stands under the roots before the command
kernel     our BPF programs and the maps that steer them; losses: what they have missed
requests   what they ask user space to look at
compiler   bpf/*.c to bytecode with bcc (its only importer), cached
bpf        bpf(2): maps, programs, tracepoints
headers    the kernel headers bcc insists on, made up
layout     struct offsets from BTF
syscalls   which handler serves which call
ring       the mapped ring buffer
pump       ring to journal; continues whoever was stopped
reread     ranges that changed without a user buffer; mapped: files written through memory
verdicts   which paths the kernel half leaves out
mounting   the mounts that the recorder sees
aside      the process that indexes beside the command
others     what processes that are not recorded change meanwhile
verify     afterwards: compare with the real files (comparing), heal, count
"""
