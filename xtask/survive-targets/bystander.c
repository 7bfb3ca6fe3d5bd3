// A process that nobody named: maps pieces of files as executable ("FILE OFFSET LENGTH" as arguments), executes none.
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int main(int count, char **arguments) {
    for (int i = 1; i + 2 < count; i += 3) {
        int file = open(arguments[i], O_RDONLY | O_CLOEXEC);
        if (file < 0) continue;
        void *at = mmap(NULL, strtoul(arguments[i + 2], NULL, 0), PROT_READ | PROT_EXEC, MAP_PRIVATE, file, (off_t)strtoul(arguments[i + 1], NULL, 0));
        if (at == MAP_FAILED) perror(arguments[i]);
        close(file);
    }
    printf("ready %d\n", getpid());
    fflush(stdout);
    while (getchar() != EOF) { }
    return 0;
}
