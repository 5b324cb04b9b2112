/** One GPU: its context, its stream, its memory, and the kernels that run on it in the order of the calls. */

import { LowbitError } from '@lowbit/core'
import { type CompiledKernel, imageOf, manifest } from '../compiled.ts'
import { type Driver, openDriver } from './driver.ts'
import { createLaunches, type GraphCounts } from './launches.ts'
import { measureGraph } from './measure.ts'
import { createMemory, type Span } from './memory.ts'
import { createReadback } from './readback.ts'

export type { Span } from './memory.ts'

/** A kernel's fields by name: spans for pointers (absent: null), numbers for numbers, and words. */
export type Arguments = Readonly<Record<string, Span | number | Uint32Array | undefined>>

export interface Device {
  /** Of the GPU, with its compute capability. */
  readonly name: string
  readonly driver: string
  /** The compute capability: 9 is 9.0. */
  readonly capability: number
  readonly bytes: number
  allocate(bytes: number): Span
  /** A span with these values. */
  place(values: ArrayBufferView): Span
  release(span: Span): void
  /** A span for one call: given back when `work` has queued what uses it. */
  borrow<T>(span: Span, work: (span: Span) => T): T
  zero(span: Span): void
  write(span: Span, values: ArrayBufferView): void
  copy(to: Span, from: Span): void
  /** Fills `into` with what is there when all that was queued before is through. */
  read(from: Span, into: ArrayBufferView): Promise<void>
  /** Runs so many blocks of a kernel. */
  run(name: string, args: Arguments, blocks: number): void
  /**
   * Seconds that what `work` queues takes on the GPU. Nothing may come from the host then or be read back: a graph keeps
   * no copy of it.
   */
  measure(work: () => void): number
  /** How often steps were launched as graphs. */
  readonly graphs: GraphCounts
  dispose(): void
}

export interface DeviceOptions {
  readonly library?: string
  readonly ordinal: number
  readonly memoryLimit: number
  /** Whether steps that repeat become graphs (launches.ts). Default: yes. */
  readonly graphs?: boolean
}

const CAPABILITY = [75, 76]
/** The oldest that the kernels are compiled for. */
const OLDEST = 7.5

/** Bytes that a kernel is given by value, as kernels/memory.cu has room for, and those that a kernel moves or zeroes. */
const LITERALS = 1024
const MOVED = 2 ** 20
/** Elements that a block of it moves. */
const MOVED_BY_BLOCK = 2048

export function openDevice({
  library,
  ordinal,
  memoryLimit,
  graphs = true,
}: DeviceOptions): Device {
  const driver = openDriver(library)
  const handle = driver.get<number>('cuDeviceGet', `opening GPU ${ordinal}`, ordinal)
  const [major, minor] = CAPABILITY.map((attribute) =>
    driver.get<number>('cuDeviceGetAttribute', 'asking for its abilities', attribute, handle),
  )
  const name = `${modelOf(driver, handle)} (${major}.${minor})`
  const capability = Number(`${major}.${minor}`)
  if (capability < OLDEST) {
    throw new LowbitError(
      'no-device',
      `${name} is too old: a compute capability of ${OLDEST} is needed`,
    )
  }
  const context = driver.get('cuDevicePrimaryCtxRetain', 'opening the GPU', handle)
  driver.call('cuCtxSetCurrent', 'opening the GPU', context)
  const stream = driver.get('cuStreamCreate', 'opening a stream', 0)
  const memory = createMemory(driver, memoryLimit, () => launches.interrupt())
  const modules = new Map<string, unknown>()
  const functions = new Map<string, unknown>()
  let ended = false
  /** Spans that what is being recorded still uses. */
  let recorded: Span[] | undefined

  function release(span: Span): void {
    if (recorded) recorded.push(span)
    else memory.release(span)
  }

  function meetHost(): void {
    enter()
    if (!recorded) return
    throw new LowbitError('bad-option', 'what is measured may neither upload nor read back')
  }

  function live(): void {
    if (ended) throw new LowbitError('bad-tensor', 'these kernels were disposed of')
  }

  function enter(): void {
    live()
    // Another device may have been current on this thread.
    driver.call('cuCtxSetCurrent', 'choosing the GPU', context)
  }

  function functionOf(kernel: string, { module }: CompiledKernel): unknown {
    const known = functions.get(kernel)
    if (known) return known
    const doing = `loading the kernel ${kernel}`
    if (!modules.has(module)) {
      modules.set(module, driver.get('cuModuleLoadData', doing, imageOf(module)))
    }
    const found = driver.get('cuModuleGetFunction', doing, modules.get(module), kernel)
    functions.set(kernel, found)
    return found
  }

  const launches = createLaunches({ driver, stream, functionOf, enter, graphs })
  const readback = createReadback(driver, stream, enter)

  /** Copies, or zeroes where there is nothing to copy. */
  function move(out: Span, x: Span | undefined, bytes: number): void {
    const onWords = [out.address, x?.address ?? 0, bytes].every((n) => n % 4 === 0)
    const each = onWords ? 4 : 1
    device.run('move_bytes', { out, x, bytes, each }, Math.ceil(bytes / each / MOVED_BY_BLOCK))
  }

  const device: Device = {
    name,
    driver: driver.version,
    capability,
    get bytes() {
      return memory.held
    },
    allocate(bytes) {
      enter()
      return memory.allocate(bytes)
    },
    place(values) {
      const span = device.allocate(values.byteLength)
      device.write(span, values)
      return span
    },
    release,
    borrow(span, work) {
      try {
        return work(span)
      } finally {
        release(span)
      }
    },
    zero(span) {
      if (span.bytes <= MOVED) {
        move(span, undefined, span.bytes)
        return
      }
      enter()
      launches.interrupt()
      driver.call('cuMemsetD8Async', 'writing zeros', span.address, 0, span.bytes, stream)
    },
    // From memory that can be paged out the driver takes a copy before it returns.
    write(out, values) {
      meetHost()
      const { buffer, byteOffset, byteLength } = values
      if (byteLength === 0) return
      if (byteLength <= LITERALS) {
        const words = new Uint32Array(Math.ceil(byteLength / 4))
        new Uint8Array(words.buffer).set(new Uint8Array(buffer, byteOffset, byteLength))
        device.run('put_bytes', { out, bytes: byteLength, values: words }, 1)
        return
      }
      launches.interrupt()
      const { address } = out
      driver.call('cuMemcpyHtoDAsync_v2', 'uploading', address, values, byteLength, stream)
    },
    copy(to, from) {
      const { address, bytes } = from
      if (bytes <= MOVED) {
        move(to, from, bytes)
        return
      }
      enter()
      launches.interrupt()
      driver.call('cuMemcpyDtoDAsync_v2', 'copying', to.address, address, bytes, stream)
    },
    read(from, into) {
      meetHost()
      launches.endStep()
      return readback.read(from, into)
    },
    run(kernel, args, blocks) {
      live()
      if (blocks === 0) return
      const compiled = manifest().kernels[kernel]
      if (!compiled) throw new Error(`there is no kernel ${kernel}`)
      writeStruct(launches.struct, kernel, compiled, args)
      launches.run(kernel, compiled, blocks)
    },
    measure(work) {
      enter()
      launches.interrupt()
      // Kernels are loaded, and memory is there, before anything is recorded.
      work()
      const held: Span[] = []
      recorded = held
      try {
        return measureGraph(driver, stream, work)
      } finally {
        recorded = undefined
        for (const span of held) memory.release(span)
      }
    },
    get graphs() {
      return launches.graphs
    },
    dispose() {
      if (ended) return
      ended = true
      driver.attempt('cuCtxSetCurrent', context)
      driver.attempt('cuStreamSynchronize', stream)
      launches.end()
      readback.end()
      memory.end()
      for (const module of modules.values()) driver.attempt('cuModuleUnload', module)
      driver.attempt('cuStreamDestroy_v2', stream)
      driver.attempt('cuDevicePrimaryCtxRelease_v2', handle)
    },
  }
  return device
}

function modelOf(driver: Driver, handle: number): string {
  const name = new Uint8Array(256)
  driver.call('cuDeviceGetName', 'asking for its name', name, name.length, handle)
  return new TextDecoder().decode(name.subarray(0, name.indexOf(0)))
}

/** Padding and words that are not given are zeros, so that structs can be compared. */
function writeStruct(
  view: DataView,
  name: string,
  { bytes, fields }: CompiledKernel,
  args: Arguments,
): void {
  new Uint8Array(view.buffer, view.byteOffset, bytes).fill(0)
  for (const [field, type, offset] of fields) {
    const value = args[field]
    if (type === 'pointer') {
      const address = typeof value === 'object' && 'address' in value ? value.address : 0
      view.setBigUint64(offset, BigInt(address), true)
    } else if (type === 'words' && value instanceof Uint32Array) {
      for (const [i, word] of value.entries()) view.setUint32(offset + 4 * i, word, true)
    } else if (typeof value !== 'number') {
      throw new Error(`the kernel ${name} is given no ${field}`)
    } else if (type === 'f32') view.setFloat32(offset, value, true)
    else view.setUint32(offset, value, true)
  }
}
