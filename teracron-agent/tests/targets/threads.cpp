/* Many threads that call the same function, each with arguments of its own; some calls throw. */
#include "log.h"
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace shop {
NOINLINE long pay(int thread, int n, const std::string &who) {
    KEEP(n);
    if (n % 10 == 9) throw std::runtime_error("no money in " + who);
    return thread * 100000L + n + (who.empty() ? 1 : 0);
}
} // namespace shop

static void work(int thread) {
    for (int n = 0; n < 1000; n++) {
        std::string who = "thread " + std::to_string(thread) + " call " + std::to_string(n);
        try {
            long paid = shop::pay(thread, n, who);
            KEEP(paid);
        } catch (const std::runtime_error &) {
        }
        if (n % 16 == 0) std::this_thread::yield();
    }
}

int main() {
    log_start();
    std::vector<std::thread> threads;
    for (int thread = 0; thread < 12; thread++) threads.emplace_back(work, thread);
    for (auto &thread : threads) thread.join();
    log_finish();
    return 0;
}
