/* The first process of a test kernel: mounts what is needed, runs the tests, powers off. */
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
    mkdir("/tmp", 0777);
    mount("proc", "/proc", "proc", 0, 0);
    mount("sysfs", "/sys", "sysfs", 0, 0);
    mount("devtmpfs", "/dev", "devtmpfs", 0, 0);
    mount("tmpfs", "/tmp", "tmpfs", 0, 0);
    int code = 99;
    pid_t pid = fork();
    if (pid == 0) {
        setenv("TERACRON_PREBUILT", "/prebuilt", 1);
        setenv("PATH", "/bin", 1);
        execl("/tests", "tests", "--test-threads=1", (char *)0);
        perror("/tests");
        _exit(98);
    }
    int status;
    while (waitpid(pid, &status, 0) < 0) {}
    if (WIFEXITED(status)) code = WEXITSTATUS(status);
    printf("\nTERACRON-TESTS-EXIT=%d\n", code);
    fflush(stdout);
    sync();
    reboot(RB_POWER_OFF);
    for (;;) pause();
}
