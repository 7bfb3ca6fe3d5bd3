// Exceptions: caught at every depth, rethrown, from destructors' callees, nested.
#include "log.h"
#include <exception>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace shop {

struct Declined : std::runtime_error {
    using std::runtime_error::runtime_error;
};
struct Base : std::logic_error {
    explicit Base(const std::string& text) : std::logic_error(text) {}
};
struct Derived : Base {
    Derived() : Base("derived text") {}
};
struct Plain {
    int value;
};
struct Silent : std::exception {};

static int sink;

NOINLINE int thrower(int kind) {
    switch (kind) {
    case 0: return 1;
    case 1: throw Declined("card declined");
    case 2: throw Derived();
    case 3: throw Plain{3};
    case 4: throw 42;
    case 5: throw std::bad_alloc();
    case 6: throw Silent();
    case 7: throw std::out_of_range("index 7");
    }
    return kind;
}

// What the log says of each kind.
static const char* const ERRORS[] = {
    "", "failed shop::Declined|card declined", "failed shop::Derived|derived text", "failed shop::Plain",
    "failed int", "failed std::bad_alloc|std::bad_alloc", "failed shop::Silent", "failed std::out_of_range|index 7",
};

static void log_end(int kind) { log_add('E', kind == 0 ? "succeeded" : ERRORS[kind]); }

NOINLINE int from_destructor(int x) { KEEP(x); return x + 1; }

struct Guard {
    int value;
    explicit Guard(int v) : value(v) {}
    ~Guard() {
        BEGIN("shop::from_destructor"); sink += from_destructor(value); OK();
    }
};

// A cleanup that throws and catches something of its own while another exception is in flight.
NOINLINE int inner_thrower(int x) {
    if (x > 0) throw Plain{x};
    return x;
}
struct Busy {
    bool outer;
    ~Busy() {
        // The frame below has ended by now.
        if (outer) log_end(1);
        BEGIN("shop::inner_thrower");
        try {
            sink += inner_thrower(1);
        } catch (const Plain&) {
            log_end(3);
        }
    }
};
NOINLINE int busy_inner(int kind) {
    Busy busy{false};
    int y = thrower(kind);
    KEEP(y);
    return y;
}
NOINLINE int busy_outer(int kind) {
    Busy busy{true};
    int y = busy_inner(kind);
    KEEP(y);
    return y;
}

// Goes down `depth` frames, then throws.
NOINLINE int deep(int depth, int kind, bool guarded) {
    int y = 0;
    if (depth == 0) {
        BEGIN("shop::thrower");
        try {
            y = thrower(kind);
        } catch (...) {
            log_end(kind);
            throw;  // the log's own frame rethrows: the exception goes on as it was
        }
        log_end(0);
        return y;
    }
    BEGIN("shop::deep");
    if (guarded) {
        Guard guard(depth);
        try {
            y = deep(depth - 1, kind, guarded);
        } catch (...) {
            log_end(kind);
            throw;
        }
        log_end(0);
    } else {
        try {
            y = deep(depth - 1, kind, guarded);
        } catch (...) {
            log_end(kind);
            throw;
        }
        log_end(0);
    }
    KEEP(y);
    return y;
}

// Catches, and goes on to succeed.
NOINLINE int catcher(int depth, int kind, bool guarded) {
    int y = 0;
    BEGIN("shop::deep");
    try {
        y = deep(depth, kind, guarded);
        log_end(0);
    } catch (...) {
        log_end(kind);
        y = -1;
    }
    BEGIN("shop::from_destructor"); y += from_destructor(y); OK();
    KEEP(y);
    return y;
}

// No handler and no cleanup between the throw and the catch: nothing lands in between.
NOINLINE int bare_inner(int kind) {
    int y = thrower(kind);
    KEEP(y);
    return y;
}
NOINLINE int bare_outer(int kind) {
    int y = bare_inner(kind);
    KEEP(y);
    return y;
}

NOINLINE int translates(int kind) {
    try {
        return bare_outer(kind);
    } catch (const Declined& declined) {
        throw Derived();
    }
}

NOINLINE int keeps(int kind) {
    std::exception_ptr kept;
    try {
        bare_outer(kind);
    } catch (...) {
        kept = std::current_exception();
    }
    if (kept) std::rethrow_exception(kept);
    return 0;
}

// The exception that is caught lies in the one that is thrown.
NOINLINE int nests(int kind) {
    try {
        return bare_outer(kind);
    } catch (...) {
        std::throw_with_nested(Declined("card declined"));
    }
}

}  // namespace shop

using namespace shop;

static void bare(int kind) {
    BEGIN("shop::bare_outer");
    BEGIN("shop::bare_inner");
    BEGIN("shop::thrower");
    try {
        sink += bare_outer(kind);
    } catch (...) {
    }
    log_end(kind); log_end(kind); log_end(kind);
}

static void translated() {
    BEGIN("shop::translates");
    BEGIN("shop::bare_outer"); BEGIN("shop::bare_inner"); BEGIN("shop::thrower");
    try {
        translates(1);
    } catch (const Derived&) {
    }
    log_end(1); log_end(1); log_end(1);
    log_end(2);
}

static void kept(int kind) {
    BEGIN("shop::keeps");
    BEGIN("shop::bare_outer"); BEGIN("shop::bare_inner"); BEGIN("shop::thrower");
    try {
        keeps(kind);
    } catch (...) {
    }
    log_end(kind); log_end(kind); log_end(kind);
    log_end(kind);
}

static void nested(int kind) {
    BEGIN("shop::nests");
    BEGIN("shop::bare_outer"); BEGIN("shop::bare_inner"); BEGIN("shop::thrower");
    try {
        nests(kind);
    } catch (...) {
    }
    log_end(kind); log_end(kind); log_end(kind);
    log_end(1);
}

// The log of a cleanup stands where it ran: after what it was thrown from, before its own frame.
static void busy() {
    BEGIN("shop::busy_outer");
    BEGIN("shop::busy_inner");
    BEGIN("shop::thrower");
    log_end(1);
    try {
        sink += busy_outer(1);
    } catch (const Declined&) {
    }
    log_end(1);
}

static void work() {
    for (int kind = 0; kind < 8; kind++) {
        for (int depth = 0; depth < 12; depth++) {
            for (int guarded = 0; guarded < 2; guarded++) {
                BEGIN("shop::catcher"); catcher(depth, kind, guarded); OK();
            }
        }
        bare(kind);
    }
    for (int i = 0; i < 5; i++) {
        translated();
        kept(1);
        kept(7);
        nested(7);
        busy();
    }
}

int main(int argc, char** argv) {
    int threads = argc > 1 ? atoi(argv[1]) : 1;
    log_start();
    if (threads == 1) {
        work();
    } else {
        std::vector<std::thread> all;
        for (int i = 0; i < threads; i++) all.emplace_back(work);
        for (auto& thread : all) thread.join();
    }
    log_finish();
}
