// Throws exceptions whose texts a test looks for where they must not be.
#include "log.h"
#include <stdexcept>
#include <string>

#define NOINLINE __attribute__((noinline, noclone))

// Made at run time, so that the text is in no file.
NOINLINE void charge(int number) {
    std::string text;
    for (char c : std::string("dbobsz.")) text += (char)(c - (c == '.' ? 0 : 1));
    throw std::runtime_error(text + std::to_string(number) + ".of-a-customer");
}

int main() {
    char line[64];
    log_start();
    for (int number = 1000; number < 1200; number++) {
        try {
            charge(number);
        } catch (const std::exception&) {
        }
    }
    printf("done\n");
    fflush(stdout);
    if (fgets(line, sizeof line, stdin)) {}
    return 0;
}
