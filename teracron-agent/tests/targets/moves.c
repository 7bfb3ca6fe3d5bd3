// Moves the page of `work` into anonymous memory when it is told to, as programs do that want their
// text in huge pages.
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

__attribute__((noinline, section(".moved"), aligned(4096))) int work(int i) {
  __asm__ volatile("");
  return i + 1;
}

#ifdef MOVES
static char saved[4096];

__attribute__((noinline, section(".mover"), aligned(4096))) static void mover(char *from, size_t n) {
  for (size_t i = 0; i < n; i++) saved[i] = from[i];
  register long rax __asm__("rax") = 9;
  register void *rdi __asm__("rdi") = from;
  register size_t rsi __asm__("rsi") = n;
  register long rdx __asm__("rdx") = 7, r10 __asm__("r10") = MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS,
                    r8 __asm__("r8") = -1, r9 __asm__("r9") = 0;
  __asm__ volatile("syscall" : "+r"(rax) : "r"(rdi), "r"(rsi), "r"(rdx), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  for (size_t i = 0; i < n; i++) from[i] = saved[i];
}
#elif defined(LIBRARY_MOVES)
// The same by the C library's functions: only where the text lies tells.
static void mover(char *from, size_t n) {
  static char saved[4096];
  memcpy(saved, from, n);
  if (mmap(from, n, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED)
    _exit(9);
  memcpy(from, saved, n);
}
#else
static void mover(char *from, size_t n) { (void)from, (void)n; }
#endif

int main(void) {
  char line[16];
  printf("ready %d\n", getpid());
  fflush(stdout);
  if (!fgets(line, sizeof line, stdin)) return 3;
  mover((char *)((uintptr_t)work & ~4095ul), 4096);
  printf("moved\n");
  fflush(stdout);
  int r = 0;
  for (int i = 0; i < 10; i++) r = work(r);
  while (fgets(line, sizeof line, stdin)) r = work(r);
  return r == 10 ? 28 : 4;
}
