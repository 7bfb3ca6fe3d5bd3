// A small payment service for `cargo xtask demo`: several threads take orders, some cards are
// declined. Nothing in it knows of being traced.
#include <chrono>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace shop {

using namespace std::chrono_literals;

struct CardDeclined : std::runtime_error {
    using std::runtime_error::runtime_error;
};

thread_local std::mt19937 dice{std::random_device{}()};

int roll(int sides) { return std::uniform_int_distribution<int>{1, sides}(dice); }

[[gnu::noinline]] void work(std::chrono::microseconds typical) {
    std::this_thread::sleep_for(typical * roll(20) / 10);
}

[[gnu::noinline]] bool validate(int order) {
    work(300us);
    return order % 50 != 0;
}

[[gnu::noinline]] void reserve_stock(int) { work(800us); }

[[gnu::noinline]] void charge_card(int order) {
    work(4ms);
    if (roll(8) == 1) throw CardDeclined("card of order " + std::to_string(order) + " was declined");
}

[[gnu::noinline]] void send_receipt(int) { work(500us); }

[[gnu::noinline]] bool create_order(int order) {
    if (!validate(order)) return false;
    reserve_stock(order);
    charge_card(order);
    send_receipt(order);
    return true;
}

[[gnu::noinline]] int handle_request(int order) {
    try {
        return create_order(order) ? 200 : 400;
    } catch (const CardDeclined&) {
        return 402;
    }
}

}  // namespace shop

int main() {
    std::vector<std::thread> workers;
    for (int worker = 0; worker < 3; worker++) {
        workers.emplace_back([worker] {
            for (int order = worker;; order += 3) {
                shop::handle_request(order);
                std::this_thread::sleep_for(std::chrono::milliseconds(400));
            }
        });
    }
    for (auto& worker : workers) worker.join();
}
