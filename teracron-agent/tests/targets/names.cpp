// Functions whose names are longer in the symbol table than in the source. It calls each a few times, and says how often.
#include "log.h"

#include <string>

#define APART __attribute__((noinline, noclone))

namespace app {
inline namespace v3 {
template <typename T, int N> struct Box {
    T content{};
    APART bool operator<(const Box &other) const { return content < other.content; }
    APART operator int() const { int size = sizeof(content); KEEP(size); return size; }
    APART int operator[](int at) const { KEEP(at); return at; }
    APART int operator()(int at) const { KEEP(at); return at + 1; }
    APART int get() const { int size = N; KEEP(size); return size; }
    APART ~Box() { int size = N; KEEP(size); }
    Box() {}
};
} // namespace v3
namespace {
APART int hidden(int x) { KEEP(x); return x + 3; }
} // namespace
APART int checked(int x) { KEEP(x); return x - 2; }
APART std::string described(int x) { KEEP(x); return std::string(40, 'x'); }
APART int fetch(const std::string &what) { int size = what.size(); KEEP(size); return size; }
} // namespace app

namespace outer {
namespace {
APART int anon(int x) { KEEP(x); return x + 5; }
} // namespace
} // namespace outer

namespace stock {
APART int checked(int x) { KEEP(x); return x + 7; }
} // namespace stock

static int sum;
#define CALL(name, call) (sum += (call), log_add('C', name))

static void once() {
    app::Box<int, 2> a, b;
    app::Box<std::string, 1> s;
    CALL("less", a < b);
    CALL("number", (int)a);
    CALL("at", a[1]);
    CALL("call", a(1));
    CALL("get", a.get());
    CALL("get", s.get());
    CALL("get_string", 0);
    CALL("hidden", app::hidden(1));
    CALL("anon", outer::anon(1));
    CALL("checked", app::checked(1));
    CALL("checked of stock", stock::checked(1));
    CALL("described", (int)app::described(1).size());
    CALL("fetch", app::fetch("orders"));
}

int main() {
    log_start();
    for (int i = 0; i < 20; i++) once();
    log_finish();
    return sum == 0;
}
