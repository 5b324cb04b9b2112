// A libcuda of one emulated GPU: the part of the driver API that the binding calls, over the scheduler.
//
// Device memory is the host's, each allocation on pages of its own that end where it ends, with a page behind it that
// must not be touched; it starts out full of NaN. A fault in a kernel is an error that stays, as on a GPU.

#include "scheduler.h"
#include <cstdlib>
#include <chrono>
#include <functional>
#include <map>
#include <set>
#include <sys/mman.h>
#include <vector>

namespace {

enum Result {
  SUCCESS = 0,
  INVALID_VALUE = 1,
  OUT_OF_MEMORY = 2,
  NO_DEVICE = 100,
  INVALID_DEVICE = 101,
  INVALID_IMAGE = 200,
  INVALID_CONTEXT = 201,
  NOT_FOUND = 500,
  NOT_READY = 600,
  ILLEGAL_ADDRESS = 700,
  LAUNCH_FAILED = 719,
  NOT_SUPPORTED = 801,
};

const std::map<int, std::pair<const char *, const char *>> TEXTS = {
    {INVALID_VALUE, {"CUDA_ERROR_INVALID_VALUE", "invalid argument"}},
    {OUT_OF_MEMORY, {"CUDA_ERROR_OUT_OF_MEMORY", "out of memory"}},
    {NO_DEVICE, {"CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"}},
    {INVALID_DEVICE, {"CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"}},
    {INVALID_IMAGE, {"CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"}},
    {INVALID_CONTEXT, {"CUDA_ERROR_INVALID_CONTEXT", "invalid device context"}},
    {NOT_FOUND, {"CUDA_ERROR_NOT_FOUND", "named symbol not found"}},
    {ILLEGAL_ADDRESS, {"CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"}},
    {NOT_SUPPORTED, {"CUDA_ERROR_NOT_SUPPORTED", "operation not supported"}},
    {LAUNCH_FAILED, {"CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"}},
};

constexpr size_t PAGE = 4096;

struct Allocation {
  void *mapping;
  size_t mapped;
  size_t bytes;
};

std::map<uint64_t, Allocation> allocations;
size_t held = 0;
int owners = 0;
/** The error that a kernel has left: every later call gives it too. */
int poison = SUCCESS;

/** What the emulated machine is like; read at each call, so that a test can change it. */
long setting(const char *name, long otherwise) {
  const char *text = std::getenv(name);
  return text && *text ? std::atol(text) : otherwise;
}
size_t memory() { return setting("LOWBIT_EMULATED_MEMORY", 2l << 30); }

int ready() { return owners == 0 ? static_cast<int>(INVALID_CONTEXT) : poison; }

/** What is queued runs at once, but for what a stream that is being recorded is given. */
using Work = std::function<int()>;
struct Graph {
  std::vector<Work> works;
  /** Of an instance: what it was made from. */
  const Graph *origin = nullptr;
};
/** A node of a graph, as long as that is there. */
struct Node {
  const Graph *graph;
  size_t place;
};
std::set<Node *> nodes;
Graph *recording = nullptr;

int queue(Work work) {
  if (!recording) return work();
  recording->works.push_back(std::move(work));
  return SUCCESS;
}

/** Memory of the host that the driver may write to while others run, and what is on its way there. */
struct Arrival {
  void *to;
  std::vector<char> bytes;
};
std::set<void *> pinned;
std::vector<Arrival> arriving;

void arrive() {
  for (const Arrival &arrival : arriving) std::memcpy(arrival.to, arrival.bytes.data(), arrival.bytes.size());
  arriving.clear();
}

bool inside(uint64_t at, size_t bytes) {
  auto next = allocations.upper_bound(at);
  if (next == allocations.begin()) return false;
  const auto &[start, allocation] = *--next;
  return at - start <= allocation.bytes && bytes <= allocation.bytes - (at - start);
}

void give_back(const Allocation &allocation) {
  UNPOISON(allocation.mapping, allocation.mapped);
  munmap(allocation.mapping, allocation.mapped);
  held -= allocation.bytes;
}

} // namespace

extern "C" {

int cuInit(unsigned) { return setting("LOWBIT_EMULATED_DEVICES", 1) > 0 ? SUCCESS : NO_DEVICE; }

int cuDriverGetVersion(int *version) {
  *version = setting("LOWBIT_EMULATED_DRIVER", 13000);
  return SUCCESS;
}

int cuDeviceGetCount(int *count) {
  *count = setting("LOWBIT_EMULATED_DEVICES", 1);
  return SUCCESS;
}

int cuDeviceGet(int *device, int ordinal) {
  *device = ordinal;
  return ordinal < setting("LOWBIT_EMULATED_DEVICES", 1) ? SUCCESS : INVALID_DEVICE;
}

int cuDeviceGetName(char *name, int length, int) {
  std::strncpy(name, "emulated GPU", length);
  return SUCCESS;
}

/** Compute capability, 9.0 where LOWBIT_EMULATED_CAPABILITY says no other, ten times as much; one multiprocessor. */
int cuDeviceGetAttribute(int *value, int attribute, int) {
  const long capability = setting("LOWBIT_EMULATED_CAPABILITY", 90);
  *value = attribute == 75 ? capability / 10 : attribute == 76 ? capability % 10 : 1;
  return SUCCESS;
}

int cuDeviceTotalMem_v2(size_t *bytes, int) {
  *bytes = memory();
  return SUCCESS;
}

int cuDevicePrimaryCtxRetain(void **context, int) {
  owners++;
  *context = &owners;
  return SUCCESS;
}

int cuDevicePrimaryCtxRelease_v2(int) {
  if (owners == 0) return INVALID_CONTEXT;
  if (--owners > 0) return SUCCESS;
  for (auto &[at, allocation] : allocations) give_back(allocation);
  allocations.clear();
  poison = SUCCESS;
  return SUCCESS;
}

int cuCtxSetCurrent(void *) { return SUCCESS; }

int cuMemGetInfo_v2(size_t *free, size_t *total) {
  *total = memory();
  *free = held < *total ? *total - held : 0;
  return ready();
}

int cuMemAlloc_v2(uint64_t *at, size_t bytes) {
  if (ready()) return ready();
  if (bytes == 0) return INVALID_VALUE;
  if (held + bytes > memory()) return OUT_OF_MEMORY;
  // Up to a word, so that words lie where words may.
  const size_t size = (bytes + 7) / 8 * 8, pages = (size + PAGE - 1) / PAGE;
  const size_t mapped = (pages + 2) * PAGE;
  char *mapping =
      static_cast<char *>(mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  if (mapping == MAP_FAILED) return OUT_OF_MEMORY;
  mprotect(mapping, PAGE, PROT_NONE);
  mprotect(mapping + (pages + 1) * PAGE, PAGE, PROT_NONE);
  // On the last word that the allocation reaches into: numbers of 4 bytes are caught to the number.
  const size_t tight = bytes % 8 == 0 ? size : (bytes + 3) / 4 * 4;
  char *start = mapping + (pages + 1) * PAGE - tight;
  std::memset(mapping + PAGE, 0xff, pages * PAGE);
  POISON(mapping + PAGE, start - mapping - PAGE);
  POISON(start + bytes, tight - bytes);
  *at = reinterpret_cast<uint64_t>(start);
  allocations[*at] = {mapping, mapped, bytes};
  held += bytes;
  return SUCCESS;
}

int cuMemFree_v2(uint64_t at) {
  auto found = allocations.find(at);
  if (ready()) return ready();
  if (found == allocations.end()) return INVALID_VALUE;
  give_back(found->second);
  allocations.erase(found);
  return SUCCESS;
}

int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, void *) {
  if (ready()) return ready();
  if (!inside(to, bytes)) return INVALID_VALUE;
  std::memcpy(reinterpret_cast<void *>(to), from, bytes);
  return SUCCESS;
}

/** Into pinned memory it arrives later, but is what was there at the call. */
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *) {
  if (ready()) return ready();
  if (!inside(from, bytes)) return INVALID_VALUE;
  const char *start = reinterpret_cast<char *>(from);
  if (pinned.count(to)) arriving.push_back({to, std::vector<char>(start, start + bytes)});
  else std::memcpy(to, start, bytes);
  return SUCCESS;
}

int cuMemHostAlloc(void **memory, size_t bytes, unsigned) {
  if (ready()) return ready();
  *memory = std::malloc(bytes);
  std::memset(*memory, 0xff, bytes);
  pinned.insert(*memory);
  return SUCCESS;
}
int cuMemFreeHost(void *memory) {
  arrive();
  if (!pinned.erase(memory)) return INVALID_VALUE;
  std::free(memory);
  return SUCCESS;
}

int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void *) {
  if (ready()) return ready();
  if (!inside(to, bytes) || !inside(from, bytes)) return INVALID_VALUE;
  return queue([=] {
    std::memmove(reinterpret_cast<void *>(to), reinterpret_cast<void *>(from), bytes);
    return SUCCESS;
  });
}

int cuMemsetD8Async(uint64_t to, unsigned char value, size_t bytes, void *) {
  if (ready()) return ready();
  if (!inside(to, bytes)) return INVALID_VALUE;
  return queue([=] {
    std::memset(reinterpret_cast<void *>(to), value, bytes);
    return SUCCESS;
  });
}

int cuStreamCreate(void **stream, unsigned) {
  *stream = &held;
  return ready();
}
int cuStreamDestroy_v2(void *) { return ready(); }
int cuStreamSynchronize(void *) {
  arrive();
  return ready();
}

/** The kernels are linked in; what is given must still be a fatbin. */
int cuModuleLoadData(void **module, const void *image) {
  if (ready()) return ready();
  uint32_t magic;
  std::memcpy(&magic, image, 4);
  *module = &poison;
  return magic == 0xba55ed50 ? SUCCESS : INVALID_IMAGE;
}
int cuModuleUnload(void *) { return ready(); }

int cuModuleGetFunction(void **function, void *, const char *name) {
  if (ready()) return ready();
  *function = emulation::find(name);
  return *function ? SUCCESS : NOT_FOUND;
}

/** A kernel with a copy of what it is given: the caller may write the next kernel's there. Empty where it can't be. */
static Work work_of(void *function, dim3 grid, dim3 block, void **extra) {
  const auto &kernel = *static_cast<emulation::Kernel *>(function);
  // CU_LAUNCH_PARAM_BUFFER_POINTER, the buffer, CU_LAUNCH_PARAM_BUFFER_SIZE, its size, CU_LAUNCH_PARAM_END.
  if (!extra || extra[0] != reinterpret_cast<void *>(1) || extra[2] != reinterpret_cast<void *>(2)) return {};
  const size_t size = *static_cast<size_t *>(extra[3]), threads = block.x * block.y * block.z;
  const bool fits = size == kernel.params && threads > 0 && threads <= kernel.threads;
  if (!fits || grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 || grid.z > 65535) return {};
  const char *params = static_cast<const char *>(extra[1]);
  return [&kernel, grid, block, params = std::vector<char>(params, params + size)] {
    switch (emulation::launch(kernel, grid, block, params.data())) {
    case emulation::Outcome::illegal_access: return poison = ILLEGAL_ADDRESS;
    case emulation::Outcome::deadlock: return poison = LAUNCH_FAILED;
    default: return static_cast<int>(SUCCESS);
    }
  };
}

int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned, void *, void **, void **extra) {
  if (ready()) return ready();
  Work work = work_of(function, {gx, gy, gz}, {bx, by, bz}, extra);
  return work ? queue(std::move(work)) : static_cast<int>(INVALID_VALUE);
}

int cuStreamBeginCapture_v2(void *, int) {
  if (ready()) return ready();
  if (recording) return INVALID_VALUE;
  recording = new Graph;
  return SUCCESS;
}
int cuStreamEndCapture(void *, void **graph) {
  if (!recording) return INVALID_VALUE;
  *graph = recording;
  recording = nullptr;
  return ready();
}

/** CUDA_KERNEL_NODE_PARAMS_v2. */
struct KernelNode {
  void *function;
  unsigned grid[3], block[3], shared;
  void **params, **extra;
  void *kernel, *context;
};
static Work work_of_node(const KernelNode &of) {
  const unsigned *grid = of.grid, *block = of.block;
  return work_of(of.function, {grid[0], grid[1], grid[2]}, {block[0], block[1], block[2]}, of.extra);
}

int cuGraphCreate(void **graph, unsigned) {
  *graph = new Graph;
  return ready();
}
/** Each node comes after the last one: nothing else is asked for here. */
int cuGraphAddKernelNode_v2(void **node, void *to, void *const *after, size_t count, const KernelNode *params) {
  if (ready()) return ready();
  auto &graph = *static_cast<Graph *>(to);
  if (count > 1 || (count == 1) != !graph.works.empty()) return INVALID_VALUE;
  if (count == 1) {
    auto *last = static_cast<Node *>(after[0]);
    if (!nodes.count(last) || last->graph != &graph || last->place + 1 != graph.works.size()) return INVALID_VALUE;
  }
  Work work = work_of_node(*params);
  if (!work) return INVALID_VALUE;
  auto *made = new Node{&graph, graph.works.size()};
  nodes.insert(made);
  graph.works.push_back(std::move(work));
  *node = made;
  return SUCCESS;
}
int cuGraphExecKernelNodeSetParams_v2(void *instance, void *node, const KernelNode *params) {
  if (ready()) return ready();
  auto &graph = *static_cast<Graph *>(instance);
  auto *at = static_cast<Node *>(node);
  Work work = work_of_node(*params);
  if (!work || !nodes.count(at) || at->graph != graph.origin) return INVALID_VALUE;
  graph.works[at->place] = std::move(work);
  return SUCCESS;
}
/** LOWBIT_EMULATED_GRAPHS=0 is a driver that has none. */
int cuGraphInstantiateWithFlags(void **instance, void *graph, unsigned long long) {
  if (setting("LOWBIT_EMULATED_GRAPHS", 1) == 0) return NOT_SUPPORTED;
  auto *made = new Graph(*static_cast<Graph *>(graph));
  made->origin = static_cast<Graph *>(graph);
  *instance = made;
  return ready();
}
int cuGraphLaunch(void *instance, void *) {
  if (ready()) return ready();
  for (const Work &work : static_cast<Graph *>(instance)->works) {
    if (const int result = work()) return result;
  }
  return SUCCESS;
}
int cuGraphExecDestroy(void *instance) {
  delete static_cast<Graph *>(instance);
  return SUCCESS;
}
int cuGraphDestroy(void *graph) {
  for (auto at = nodes.begin(); at != nodes.end();) {
    if ((*at)->graph != graph) {
      ++at;
      continue;
    }
    delete *at;
    at = nodes.erase(at);
  }
  delete static_cast<Graph *>(graph);
  return SUCCESS;
}

using Clock = std::chrono::steady_clock;
int cuEventCreate(void **event, unsigned) {
  *event = new Clock::time_point;
  return ready();
}
int cuEventRecord(void *event, void *) {
  *static_cast<Clock::time_point *>(event) = Clock::now();
  return ready();
}
/** Not at the first time that it is asked. */
int cuEventQuery(void *) {
  static bool asked = false;
  asked = !asked;
  if (ready() || asked) return ready() ? ready() : static_cast<int>(NOT_READY);
  arrive();
  return SUCCESS;
}
int cuEventElapsedTime(float *milliseconds, void *from, void *to) {
  const auto apart = *static_cast<Clock::time_point *>(to) - *static_cast<Clock::time_point *>(from);
  *milliseconds = std::chrono::duration<float, std::milli>(apart).count();
  return ready();
}
int cuEventDestroy_v2(void *event) {
  delete static_cast<Clock::time_point *>(event);
  return SUCCESS;
}

static int text_of(int result, const char **text, bool name) {
  auto found = TEXTS.find(result);
  *text = found == TEXTS.end() ? nullptr : name ? found->second.first : found->second.second;
  return found == TEXTS.end() ? INVALID_VALUE : SUCCESS;
}
int cuGetErrorName(int result, const char **text) { return text_of(result, text, true); }
int cuGetErrorString(int result, const char **text) { return text_of(result, text, false); }

} // extern "C"
