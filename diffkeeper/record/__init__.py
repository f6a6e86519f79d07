"""Recording: what lives only while a command runs. Makes journal frames, nothing downstream.

session    one recording from beginning to end, and the promise not to harm the command
child      the command, and the guardian that never leaves it stopped
scope      roots, filesystems left alone
baseline   what stands under the roots before the command
kernel     our BPF programs and the maps that steer them
compiler   bpf/*.c to bytecode with bcc (its only importer), cached
bpf        bpf(2): maps, programs, tracepoints
headers    the kernel headers bcc insists on, made up
layout     struct offsets from BTF
syscalls   which handler serves which call
ring       the mapped ring buffer
pump       ring to journal; continues whoever was stopped
reread     ranges that changed without a user buffer
verify     afterwards: compare with the real files, heal, count
cache      files that spare the next recording work
"""
