/* Maps what it is told to map, as code: a file, or so many files in memory. Then it calls work() for each line. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

__attribute__((noinline)) int work(int n)
{
    __asm__ volatile("" : "+r"(n));
    return n;
}

static void map(int fd)
{
    if (mmap(0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0) == MAP_FAILED)
        abort();
    close(fd);
}

static void map_all(const char *what)
{
    if (what[0] == '/') {
        map(open(what, O_RDONLY));
        return;
    }
    for (int left = atoi(what); left > 0; left--) {
        int fd = memfd_create("code", 0);
        if (ftruncate(fd, 4096))
            abort();
        map(fd);
    }
}

int main(int argc, char **argv)
{
    char line[4096];
    if (argc > 1)
        map_all(argv[1]);
    printf("ready %d\n", getpid());
    fflush(stdout);
    for (int n = 0; fgets(line, sizeof line, stdin); n++) {
        line[strcspn(line, "\n")] = 0;
        if (line[0] == '/') {
            map_all(line);
            /* Loading a library is what makes the agent look again. */
            if (!dlopen("libm.so.6", RTLD_NOW))
                abort();
        }
        work(n);
        printf("%d\n", n);
        fflush(stdout);
    }
    return 0;
}
