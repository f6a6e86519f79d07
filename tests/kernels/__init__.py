"""Other kernels than the running one: booted in a virtual machine on this very system, with the suite run in them."""
