/* fstat is a symbol of glibc since 2.33 only. One fallback of libsodium for old kernels uses it: ask the kernel itself,
   whose structure is the C library's on both 64-bit CPUs. */
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#define fstat(fd, into) ((int) syscall(SYS_fstat, (fd), (into)))
