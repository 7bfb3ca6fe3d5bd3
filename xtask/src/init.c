/* The first process of a test kernel: mounts what is needed, runs the tests, powers off.
 * TESTS_ONLY=name and TESTS_REPEAT=n on the kernel's command line run some of them again and again. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void) {
    mkdir("/proc", 0755);
    mkdir("/sys", 0755);
    mkdir("/dev", 0755);
    mkdir("/tmp", 0777); /* nothing is mounted there: the checkout may lie below it */
    mount("proc", "/proc", "proc", 0, 0);
    mount("sysfs", "/sys", "sysfs", 0, 0);
    mount("devtmpfs", "/dev", "devtmpfs", 0, 0);
    /* The kernel passes words of its command line that it does not know as the environment. */
    const char *only = getenv("TESTS_ONLY"), *repeat = getenv("TESTS_REPEAT");
    int code = 99;
    for (int round = repeat ? atoi(repeat) : 1; round > 0; round--) {
        pid_t pid = fork();
        if (pid == 0) {
            setenv("TERACRON_PREBUILT", "/prebuilt", 1);
            setenv("PATH", "/bin", 1);
            execl("/tests", "tests", "--test-threads=1", "--include-ignored", only ? only : "core::", (char *)0);
            perror("/tests");
            _exit(98);
        }
        int status;
        while (waitpid(pid, &status, 0) < 0) {}
        code = WIFEXITED(status) ? WEXITSTATUS(status) : 97;
        if (code != 0) break;
    }
    printf("\nTERACRON-TESTS-EXIT=%d\n", code);
    fflush(stdout);
    sync();
    reboot(RB_POWER_OFF);
    for (;;) pause();
}
