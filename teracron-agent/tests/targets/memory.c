/* Calls that touch memory and calls that don't, with what the kernel says of the process around them:
   "M thread name rss-after rss-change faults". */
#include "log.h"
#include <sys/mman.h>
#include <sys/resource.h>

#define BYTES (20 << 20)

NOINLINE int touch(char *memory) {
    for (long at = 0; at < BYTES; at += 4096) memory[at] = 1;
    KEEP(memory[7]);
    return memory[4096];
}

NOINLINE int rest(char *memory) {
    KEEP(memory[0]);
    return memory[0];
}

static long resident(void) {
    long size = 0, pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file || fscanf(file, "%ld %ld", &size, &pages) != 2) abort();
    fclose(file);
    return pages * 4096;
}

static long faults(void) {
    struct rusage usage;
    getrusage(RUSAGE_THREAD, &usage);
    return usage.ru_minflt + usage.ru_majflt;
}

static char lines[16][128];

int main(void) {
    log_start();
    resident();
    for (int i = 0; i < 6; i++) {
        char *memory = mmap(0, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        /* Page by page, or a huge page would come with one fault. */
        madvise(memory, BYTES, MADV_NOHUGEPAGE);
        memory[0] = 1;
        long before = resident(), faulted = faults();
        if (i % 2) rest(memory); else touch(memory);
        long fault = faults() - faulted, after = resident();
        snprintf(lines[i], sizeof lines[i], "M %d %s %ld %ld %ld", log_thread(), i % 2 ? "rest" : "touch", after,
                 after - before, fault);
    }
    for (int i = 0; i < 6; i++) puts(lines[i]);
    log_finish();
    return 0;
}
