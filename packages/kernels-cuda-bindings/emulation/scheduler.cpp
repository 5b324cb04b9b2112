// Threads as fibers: a fiber runs until it waits or ends, then the next one does.

#include "scheduler.h"
#include "mma.h"
#include <csetjmp>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>
#include <vector>
#ifndef __x86_64__
#include <ucontext.h>
#endif

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {

static Kernel *kernels = nullptr;

Kernel::Kernel(const char *name, size_t params, unsigned threads, void (*run)(const void *))
    : name(name), params(params), threads(threads), run(run), next(kernels) {
  kernels = this;
}

Kernel *find(const char *name) {
  Kernel *kernel = kernels;
  while (kernel && std::strcmp(kernel->name, name) != 0) kernel = kernel->next;
  return kernel;
}

// ---- switching stacks: by hand on x86-64, since swapcontext asks the system for the signal mask each time

#ifdef __x86_64__
using Context = void *;
extern "C" void lowbit_switch(Context *from, Context to);
asm(".text\n"
    ".globl lowbit_switch\n"
    "lowbit_switch:\n"
    "pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
    "movq %rsp, (%rdi)\n"
    "movq %rsi, %rsp\n"
    "popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n"
    "ret\n");
static void enter(Context &from, Context &to) { lowbit_switch(&from, to); }
static void prepare(Context &context, char *stack, size_t size, void (*entry)()) {
  void **top = reinterpret_cast<void **>(stack + size);
  *--top = nullptr;
  *--top = reinterpret_cast<void *>(entry);
  for (int i = 0; i < 6; i++) *--top = nullptr;
  context = top;
}
#else
using Context = ucontext_t;
static void enter(Context &from, Context &to) { swapcontext(&from, &to); }
static void prepare(Context &context, char *stack, size_t size, void (*entry)()) {
  getcontext(&context);
  context.uc_stack.ss_sp = stack;
  context.uc_stack.ss_size = size;
  context.uc_link = nullptr;
  makecontext(&context, entry, 0);
}
#endif

// ---- fibers

enum class State { ready, at_block, at_warp, ended };

struct Fiber {
  Context context;
  State state;
  dim3 index;
  /** Exchanges so far: which of the two boards is written. */
  unsigned exchanges;
};

constexpr unsigned MOST_THREADS = 1024;
constexpr size_t STACK = 64 << 10, GUARD = 4096;
/** Stacks begin apart from each other by this within their rooms: else all would share a few lines of a cache. */
constexpr size_t STAGGER = 448;

static Fiber fibers[MOST_THREADS];
/** The lanes of each warp that have not ended. */
static unsigned alive[MOST_THREADS / 32];
static uint64_t boards[MOST_THREADS / 32][2][32];
static Context scheduler;
static unsigned current, count, left;
static const Kernel *running;
static const void *arguments;
static bool missing_lanes;

/** Stacks, each with a page below it that must not be touched. */
static char *stack_of(unsigned i) {
  static char *all = [] {
    void *memory = mmap(nullptr, MOST_THREADS * STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (unsigned i = 0; i < MOST_THREADS; i++) mprotect(static_cast<char *>(memory) + i * STACK, GUARD, PROT_NONE);
    return static_cast<char *>(memory);
  }();
  return all + i * STACK;
}

/** The last threads first: what lacks a barrier may show in one order alone. */
static bool backwards;

/** The first fiber that can run, of those from `step` on in the order of running. */
static bool choose_from(unsigned step) {
  for (; step < count; step++) {
    current = backwards ? count - 1 - step : step;
    if (fibers[current].state != State::ready) continue;
    threadIdx = fibers[current].index;
    return true;
  }
  return false;
}

/** On to the next fiber that can run; after the last one the scheduler sees who is waiting. */
static void pause_as(State state) {
  Fiber &fiber = fibers[current];
  fiber.state = state;
  const unsigned step = backwards ? count - 1 - current : current;
  enter(fiber.context, choose_from(step + 1) ? fibers[current].context : scheduler);
}

static void body() {
  running->run(arguments);
  alive[current / 32] &= ~(1u << current % 32);
  left--;
  pause_as(State::ended);
}

void wait_for_block() { pause_as(State::at_block); }

unsigned lane() { return current % 32; }

const uint64_t *exchange(unsigned mask, uint64_t value) {
  Fiber &fiber = fibers[current];
  const unsigned warp = current / 32, board = fiber.exchanges++ % 2;
  if (mask & ~alive[warp]) missing_lanes = true;
  boards[warp][board][current % 32] = value;
  pause_as(State::at_warp);
  return boards[warp][board];
}

// ---- copies that are under way

struct Copy {
  void *to;
  const void *from;
  size_t bytes;
};
/** Of each thread: groups that have ended, and the last one that has not. */
static std::vector<std::vector<Copy>> copies[MOST_THREADS];

void copy_later(void *to, const void *from, size_t bytes) {
  auto &mine = copies[current];
  if (mine.empty()) mine.emplace_back();
  mine.back().push_back({to, from, bytes});
}
void end_copies() {
  auto &mine = copies[current];
  if (mine.empty()) mine.emplace_back();
  mine.emplace_back();
}
void wait_for_copies(size_t most_left) {
  auto &mine = copies[current];
  size_t done = 0;
  for (; done + 1 + most_left < mine.size(); done++) {
    for (const Copy &copy : mine[done]) std::memcpy(copy.to, copy.from, copy.bytes);
  }
  mine.erase(mine.begin(), mine.begin() + done);
}

static bool release(unsigned from, unsigned to, State waiting) {
  bool any = false;
  for (unsigned i = from; i < to; i++) {
    if (fibers[i].state == State::ended) continue;
    if (fibers[i].state != waiting) return false;
    any = true;
  }
  for (unsigned i = from; i < to && any; i++) {
    if (fibers[i].state == waiting) fibers[i].state = State::ready;
  }
  return any;
}

static Outcome run_block() {
  std::memset(alive, 0, sizeof(alive));
  for (unsigned i = 0; i < count; i++) {
    alive[i / 32] |= 1u << i % 32;
    fibers[i].state = State::ready;
    fibers[i].exchanges = 0;
    copies[i].clear();
    fibers[i].index = {i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y};
    UNPOISON(stack_of(i) + GUARD, STACK - GUARD);
    prepare(fibers[i].context, stack_of(i), STACK - i % 32 * STAGGER, body);
  }
  left = count;
  for (;;) {
    if (choose_from(0)) enter(scheduler, fibers[current].context);
    if (missing_lanes) return Outcome::deadlock;
    if (left == 0) return Outcome::done;
    bool going = release(0, count, State::at_block);
    if (going) continue;
    for (unsigned warp = 0; warp < count; warp += 32) {
      going |= release(warp, warp + 32 < count ? warp + 32 : count, State::at_warp);
    }
    if (!going) return Outcome::deadlock;
  }
}

// ---- faults: what a GPU reports as an illegal access

static sigjmp_buf fault;
static void on_fault(int) { siglongjmp(fault, 1); }
constexpr int FAULTS[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};

Outcome launch(const Kernel &kernel, dim3 grid, dim3 block, const void *params) {
  running = &kernel;
  arguments = params;
  blockDim = block;
  gridDim = grid;
  count = block.x * block.y * block.z;
  missing_lanes = false;
  backwards = std::getenv("LOWBIT_EMULATED_BACKWARDS") != nullptr;
  struct sigaction before[4], now = {};
  now.sa_handler = on_fault;
  now.sa_flags = SA_NODEFER;
  for (int i = 0; i < 4; i++) sigaction(FAULTS[i], &now, &before[i]);
  volatile Outcome outcome = Outcome::done;
  if (sigsetjmp(fault, 1) == 0) {
    for (blockIdx.z = 0; blockIdx.z < grid.z && outcome == Outcome::done; blockIdx.z++) {
      for (blockIdx.y = 0; blockIdx.y < grid.y && outcome == Outcome::done; blockIdx.y++) {
        for (blockIdx.x = 0; blockIdx.x < grid.x && outcome == Outcome::done; blockIdx.x++) outcome = run_block();
      }
    }
  } else {
    outcome = Outcome::illegal_access;
  }
  for (int i = 0; i < 4; i++) sigaction(FAULTS[i], &before[i], nullptr);
  return outcome;
}

} // namespace emulation
