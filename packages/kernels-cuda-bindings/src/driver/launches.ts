/**
 * Kernels on their way to the GPU. Steps that repeat (a decoder's, token by token) become a graph, which is launched at
 * once instead of kernel by kernel.
 *
 * A step is what is queued between two readings. Two steps in a row that run the same kernels in as many blocks are
 * recorded as a graph. Of the next one each kernel is compared with the graph's node at its place: where what it is given
 * differs (a position, a cache's row), that node is set anew, and in the end, at the reading, the graph is launched. So
 * kernels take positions as they always did, caches may grow, and neither the decoder nor its cache knows of graphs.
 *
 * A step that turns out to be another one is launched kernel by kernel from there on, as are steps in which memory is
 * moved that no kernel was given by value or address (large uploads), is given back to the driver, or is measured.
 */

import koffi from 'koffi'
import type { CompiledKernel } from '../compiled.ts'
import type { Driver } from './driver.ts'

export interface Launches {
  /** Where a kernel's struct is written, before `run`. */
  readonly struct: DataView
  run(kernel: string, compiled: CompiledKernel, blocks: number): void
  /** All that was run is on the stream; what comes now can't be in a graph. */
  interrupt(): void
  /** The same, and a step has ended. */
  endStep(): void
  /** Steps that were launched as graphs, their kernels, and those of them that had to be set anew. */
  readonly graphs: GraphCounts
  end(): void
}

export interface GraphCounts {
  readonly launched: number
  readonly kernels: number
  readonly changed: number
}

interface Launch {
  readonly kernel: string
  readonly compiled: CompiledKernel
  readonly blocks: number
  args: Uint32Array
}

interface Graph {
  readonly launches: readonly Launch[]
  readonly graph: unknown
  readonly nodes: readonly unknown[]
  readonly instance: unknown
}

export interface LaunchesOptions {
  readonly driver: Driver
  readonly stream: unknown
  readonly functionOf: (kernel: string, compiled: CompiledKernel) => unknown
  /** Makes the GPU the current one. */
  readonly enter: () => void
  readonly graphs: boolean
}

/** Room for the struct of any kernel. */
const ROOM = 2048

/** Kernels of a step that is worth a graph, and that is still remembered. */
const LEAST = 32
const MOST = 10_000

export function createLaunches(options: LaunchesOptions): Launches {
  const { driver, stream, functionOf, enter } = options
  const { struct, words, extra, node } = launchMemory()
  let allowed = options.graphs
  let graph: Graph | undefined
  /** Kernels of this step that the graph has met so far; none where it is launched kernel by kernel. */
  let met: number | undefined
  /** What was launched in this step, and in the one before; none where it can't be recorded. */
  let seen: Launch[] | undefined = []
  let before: readonly Launch[] = []
  let [launched, kernels, changed] = [0, 0, 0]

  function launch(kernel: string, compiled: CompiledKernel, blocks: number): void {
    enter()
    extra.size(compiled.bytes)
    driver.call(
      ...(['cuLaunchKernel', `running the kernel ${kernel}`] as const),
      ...[functionOf(kernel, compiled), blocks, 1, 1, compiled.threads, 1, 1, 0, stream],
      ...[null, extra.list],
    )
  }

  /** What the graph has met is launched kernel by kernel. */
  function leave(): void {
    const some = graph?.launches.slice(0, met) ?? []
    met = undefined
    seen = some.map((one) => ({ ...one, args: one.args.slice() }))
    for (const { kernel, compiled, blocks, args } of some) {
      words.set(args)
      launch(kernel, compiled, blocks)
    }
  }

  function setNode({ kernel, compiled, blocks }: Launch): unknown {
    extra.size(compiled.bytes)
    return node(functionOf(kernel, compiled), blocks, compiled.threads)
  }

  /** Whether it is the graph's next kernel, which is then left to it. */
  function meets(compiled: CompiledKernel, blocks: number): boolean {
    if (!graph || met === undefined) return false
    const next = graph.launches[met]
    if (next?.compiled !== compiled || next.blocks !== blocks) return false
    const { args } = next
    if (args.some((word, i) => word !== words[i])) {
      args.set(words.subarray(0, args.length))
      const doing = 'setting a kernel of a graph'
      const params = setNode(next)
      driver.call(
        'cuGraphExecKernelNodeSetParams_v2',
        doing,
        graph.instance,
        graph.nodes[met],
        params,
      )
      changed++
    }
    met++
    return true
  }

  function record(launches: readonly Launch[]): void {
    forget()
    enter()
    const doing = 'recording a graph'
    const made = driver.get('cuGraphCreate', doing, 0)
    const nodes: unknown[] = []
    try {
      for (const one of launches) {
        words.set(one.args)
        const after = BigUint64Array.from(nodes.slice(-1), (last) => koffi.address(last))
        const found: unknown[] = [null]
        const params = setNode(one)
        driver.call('cuGraphAddKernelNode_v2', doing, found, made, after, after.length, params)
        nodes.push(found[0])
      }
      const instance = driver.get('cuGraphInstantiateWithFlags', doing, made, 0)
      graph = { launches, graph: made, nodes, instance }
    } catch {
      // Without graphs everything runs as well; an error that lasts is thrown by the next call.
      driver.attempt('cuGraphDestroy', made)
      allowed = false
    }
  }

  function forget(): void {
    if (!graph) return
    driver.attempt('cuGraphExecDestroy', graph.instance)
    driver.attempt('cuGraphDestroy', graph.graph)
    graph = undefined
  }

  const isLikeBefore = (launches: readonly Launch[]): boolean =>
    launches.length === before.length &&
    launches.every(
      ({ compiled, blocks }, i) => compiled === before[i].compiled && blocks === before[i].blocks,
    )

  return {
    struct,
    run(kernel, compiled, blocks) {
      if (met !== undefined) {
        if (meets(compiled, blocks)) return
        const mine = words.slice()
        leave()
        words.set(mine)
      }
      launch(kernel, compiled, blocks)
      const args = words.slice(0, compiled.bytes / 4)
      if (seen && seen.length < MOST) seen.push({ kernel, compiled, blocks, args })
      else seen = undefined
    },
    interrupt() {
      if (met !== undefined) leave()
      seen = undefined
    },
    endStep() {
      if (!allowed) return
      if (graph && met === graph.launches.length) {
        enter()
        driver.call('cuGraphLaunch', 'launching a graph', graph.instance, stream)
        launched++
        kernels += met
      } else {
        if (met !== undefined) leave()
        const known = seen ?? []
        if (known.length >= LEAST && isLikeBefore(known)) record(known)
        if (known.length > 0) before = known
      }
      met = graph && 0
      seen = []
    },
    get graphs() {
      return { launched, kernels, changed }
    },
    end: forget,
  }
}

/**
 * A kernel's struct, in memory that stays where it is, and what points to it: cuLaunchKernel's `extra`
 * (CU_LAUNCH_PARAM_BUFFER_POINTER, the struct, CU_LAUNCH_PARAM_BUFFER_SIZE, where its size stands, CU_LAUNCH_PARAM_END),
 * and CUDA_KERNEL_NODE_PARAMS_v2 (function, grid, block, shared memory, params, extra, kernel, context).
 */
function launchMemory() {
  const [struct, list, params] = [ROOM, 48, 72].map((bytes) => koffi.alloc('uint8_t', bytes))
  const words = new Uint32Array(koffi.view(struct, ROOM))
  const extra = new BigUint64Array(koffi.view(list, 48))
  extra.set([1n, koffi.address(struct), 2n, koffi.address(list) + 40n, 0n, 0n])
  const view = new DataView(koffi.view(params, 72))
  for (let at = 0; at < 72; at += 8) view.setBigUint64(at, 0n, true)
  view.setBigUint64(48, koffi.address(list), true)
  return {
    struct: new DataView(words.buffer),
    words,
    extra: {
      list,
      size(bytes: number): void {
        extra[5] = BigInt(bytes)
      },
    },
    node(found: unknown, blocks: number, threads: number): unknown {
      view.setBigUint64(0, koffi.address(found), true)
      for (const [i, size] of [blocks, 1, 1, threads, 1, 1].entries()) {
        view.setUint32(8 + 4 * i, size, true)
      }
      return params
    },
  }
}
