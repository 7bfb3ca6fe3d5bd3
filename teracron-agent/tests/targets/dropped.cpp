// As dropped.c: methods of templates, and what is in no header.
#include "log.h"
#include <string>

static std::string lines;

template <class T> struct Box {
    T t;
    __attribute__((noinline)) T get(int k) const { asm volatile("" ::"r"(&k), "r"(this) : "memory"); return t; }
    __attribute__((noinline)) T add(int k) const { asm volatile("" ::"r"(&k), "r"(this) : "memory"); return t + k; }
};
namespace {
struct Pair { long a; long b; };
__attribute__((noinline)) Pair half(const int *p, long k) { asm volatile("" ::"r"(&k), "r"(p) : "memory"); return {k, *p}; }
}

int main() {
    Box<int> b{9};
    asm volatile("" : "+m"(b));
    log_start();
    for (int i = 1; i <= 20; i++) {
        char line[200];
        b.get(i);
        lines += "{\"call\":\"Box<int>::get\",\"status\":\"succeeded\",\"ret\":9}\n";
        int r = b.add(i);
        snprintf(line, sizeof line, "{\"call\":\"Box<int>::add\",\"status\":\"succeeded\",\"ret\":%d}\n", r);
        lines += line;
        long second = half(&b.t, i).b;
        snprintf(line, sizeof line, "{\"call\":\"(anonymous namespace)::half\",\"status\":\"succeeded\",\"ret.a\":%d,\"ret.b\":%ld}\n", i, second);
        lines += line;
    }
    fputs(lines.c_str(), stdout);
    log_finish();
}
