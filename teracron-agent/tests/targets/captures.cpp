// Captures in C++: what captures.c is for C.
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "log.h"
#define KEEP_ALL() asm volatile("" ::: "memory")
#define CANARY "CANARYCANARYCANARYCANARYCANARY"

static const volatile void *volatile looked_at;
static volatile unsigned long looked_at_size;

namespace shop {

enum class Status : unsigned char { Ok, Declined = 3 };

struct Base {
    std::string before = CANARY;
    long base_id = 11;
};

struct Cart : Base {
    std::string owner;
    std::string secret = CANARY;
    std::vector<int> items;
    double total = 9.5;
    Status status = Status::Declined;
};

struct Plain {
    long a;
    short b;
};

struct Shop {
    int calls = 0;
    __attribute__((noinline)) int pay(const std::string &who, std::string_view view, std::string copy, Cart &cart,
                                      const char *text) {
        /* What is not looked at need not be passed. */
        looked_at = &who;
        looked_at = &cart;
        looked_at = view.data();
        looked_at_size = view.size();
        looked_at = &copy;
        looked_at = text;
        KEEP_ALL();
        return ++calls;
    }
};

template <typename T> __attribute__((noinline)) T twice(T value) {
    KEEP_ALL();
    return value * 2;
}

__attribute__((noinline)) std::string make(int k) {
    KEEP_ALL();
    return k % 2 ? "short" : std::string(40, 'm');
}

__attribute__((noinline)) Status judge(int k) {
    KEEP_ALL();
    return k & 1 ? Status::Ok : Status::Declined;
}

__attribute__((noinline)) Plain plain(int k) {
    KEEP_ALL();
    return {k * 7, static_cast<short>(-k)};
}

__attribute__((noinline)) std::unique_ptr<int> small_class(int k) {
    KEEP_ALL();
    return std::make_unique<int>(k);
}

/* With constructors, and yet returned in registers. */
struct Money {
    long cents;
    int currency;
    explicit Money(long cents) : cents(cents), currency(978) {}
    Money(const Money &) = default;
    ~Money() = default;
    bool operator<(const Money &other) const { return cents < other.cents; }
};

__attribute__((noinline)) Money money(int k) {
    KEEP_ALL();
    return Money(k * 100L);
}

/* Its copies are its own business: it is returned in memory. */
struct Counted {
    long n;
    explicit Counted(long n) : n(n) {}
    Counted(const Counted &other) : n(other.n + 1) {}
};

__attribute__((noinline)) Counted counted(int k) {
    KEEP_ALL();
    return Counted(k);
}

} // namespace shop

static std::string lines;

int main() {
    using namespace shop;
    Shop shop;
    Cart cart;
    log_start();
    for (int i = 0; i < 20; i++) {
        cart.owner = i % 2 ? "in place" : "a name that is too long to lie in place";
        cart.items.assign(i, 1);
        std::string who = i % 3 ? "who" : std::string(300, 'w');
        shop.pay(who, "a view of it", "a copy", cart, "text");
        lines += "{\"call\":\"shop::Shop::pay\",\"this.calls\":" + std::to_string(i) + ",\"who\":\"" + who +
                 "\",\"who.len\":" + std::to_string(who.size()) + ",\"cart.owner\":\"" + cart.owner +
                 "\",\"cart.items\":" + std::to_string(i) + ",\"cart.total\":9.5,\"cart.status\":\"Declined\"," +
                 "\"cart.base_id\":11,\"text\":\"text\",\"view\":\"a view of it\",\"copy\":\"a copy\",\"status\":\"succeeded\"}\n";
        long t = twice<long>(i);
        lines += "{\"call\":\"shop::twice<long>\",\"value\":" + std::to_string(i) + ",\"ret\":" + std::to_string(t) +
                 ",\"status\":\"succeeded\"}\n";
        lines += "{\"call\":\"shop::make\",\"k\":" + std::to_string(i) + ",\"ret\":\"" + make(i) +
                 "\",\"status\":\"succeeded\"}\n";
        Status s = judge(i);
        lines += "{\"call\":\"shop::judge\",\"ret\":\"" + std::string(s == Status::Ok ? "Ok" : "Declined") +
                 "\",\"status\":\"" + (s == Status::Ok ? "succeeded" : "failed ret == Status::Declined") + "\"}\n";
        Plain p = plain(i);
        lines += "{\"call\":\"shop::plain\",\"ret.a\":" + std::to_string(p.a) + ",\"ret.b\":" + std::to_string(p.b) +
                 ",\"status\":\"succeeded\"}\n";
        Money m = money(i);
        lines += "{\"call\":\"shop::money\",\"ret.cents\":" + std::to_string(m.cents) + ",\"ret.currency\":" +
                 std::to_string(m.currency) + ",\"status\":\"succeeded\"}\n";
        Counted c = counted(i);
        lines += "{\"call\":\"shop::counted\",\"ret.n\":" + std::to_string(c.n) + ",\"status\":\"succeeded\"}\n";
        small_class(i);
        lines += "{\"call\":\"shop::small_class\",\"k\":" + std::to_string(i) + ",\"status\":\"succeeded\"}\n";
    }
    fputs(lines.c_str(), stdout);
    log_finish();
}
