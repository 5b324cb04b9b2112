/** One GPU: its context, its stream, its memory, and the kernels that run on it in the order of the calls. */

import { LowbitError } from '@lowbit/core'
import koffi from 'koffi'
import { type CompiledKernel, imageOf, manifest } from '../compiled.ts'
import { type Driver, openDriver } from './driver.ts'
import { measureGraph } from './measure.ts'
import { createMemory, type Span } from './memory.ts'
import { createReadback } from './readback.ts'

export type { Span } from './memory.ts'

/** A kernel's fields by name: spans for pointers (absent: null), numbers for numbers. */
export type Arguments = Readonly<Record<string, Span | number | undefined>>

export interface Device {
  /** Of the GPU, with its compute capability. */
  readonly name: string
  readonly driver: string
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
  dispose(): void
}

export interface DeviceOptions {
  readonly library?: string
  readonly ordinal: number
  readonly memoryLimit: number
}

const CAPABILITY = [75, 76]
/** The oldest that the kernels are compiled for. */
const OLDEST = 7.5

/** Room for the struct of any kernel. */
const ROOM = 1024

export function openDevice({ library, ordinal, memoryLimit }: DeviceOptions): Device {
  const driver = openDriver(library)
  const handle = driver.get<number>('cuDeviceGet', `opening GPU ${ordinal}`, ordinal)
  const [major, minor] = CAPABILITY.map((attribute) =>
    driver.get<number>('cuDeviceGetAttribute', 'asking for its abilities', attribute, handle),
  )
  const name = `${modelOf(driver, handle)} (${major}.${minor})`
  if (Number(`${major}.${minor}`) < OLDEST) {
    throw new LowbitError(
      'no-device',
      `${name} is too old: a compute capability of ${OLDEST} is needed`,
    )
  }
  const context = driver.get('cuDevicePrimaryCtxRetain', 'opening the GPU', handle)
  driver.call('cuCtxSetCurrent', 'opening the GPU', context)
  const stream = driver.get('cuStreamCreate', 'opening a stream', 0)
  const memory = createMemory(driver, memoryLimit)
  const modules = new Map<string, unknown>()
  const functions = new Map<string, unknown>()
  const launch = launcher()
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

  function enter(): void {
    if (ended) throw new LowbitError('bad-tensor', 'these kernels were disposed of')
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

  const readback = createReadback(driver, stream, enter)

  const device: Device = {
    name,
    driver: driver.version,
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
    zero({ address, bytes }) {
      enter()
      if (bytes > 0) driver.call('cuMemsetD8Async', 'writing zeros', address, 0, bytes, stream)
    },
    // From memory that can be paged out the driver takes a copy before it returns.
    write({ address }, values) {
      meetHost()
      const { byteLength } = values
      if (byteLength === 0) return
      driver.call('cuMemcpyHtoDAsync_v2', 'uploading', address, values, byteLength, stream)
    },
    copy(to, from) {
      enter()
      if (from.bytes === 0) return
      const { address, bytes } = from
      driver.call('cuMemcpyDtoDAsync_v2', 'copying', to.address, address, bytes, stream)
    },
    read(from, into) {
      meetHost()
      return readback.read(from, into)
    },
    run(kernel, args, blocks) {
      enter()
      if (blocks === 0) return
      const compiled = manifest().kernels[kernel]
      if (!compiled) throw new Error(`there is no kernel ${kernel}`)
      const extra = launch(kernel, compiled, args)
      driver.call(
        ...(['cuLaunchKernel', `running the kernel ${kernel}`] as const),
        ...[functionOf(kernel, compiled), blocks, 1, 1, compiled.threads, 1, 1, 0, stream],
        ...[null, extra],
      )
    },
    measure(work) {
      enter()
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
    dispose() {
      if (ended) return
      ended = true
      driver.attempt('cuCtxSetCurrent', context)
      driver.attempt('cuStreamSynchronize', stream)
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

/**
 * Writes a kernel's struct into memory that stays where it is, and returns cuLaunchKernel's `extra`:
 * CU_LAUNCH_PARAM_BUFFER_POINTER, the struct, CU_LAUNCH_PARAM_BUFFER_SIZE, where its size stands, CU_LAUNCH_PARAM_END.
 */
function launcher(): (name: string, kernel: CompiledKernel, args: Arguments) => unknown {
  const struct = koffi.alloc('uint8_t', ROOM)
  const extra = koffi.alloc('uint64_t', 6)
  const view = new DataView(koffi.view(struct, ROOM))
  const list = new BigUint64Array(koffi.view(extra, 48))
  const sizeAt = koffi.address(extra) + 40n
  list.set([1n, koffi.address(struct), 2n, sizeAt, 0n, 0n])
  return (name, { bytes, fields }, args) => {
    list[5] = BigInt(bytes)
    for (const [field, type, offset] of fields) {
      const value = args[field]
      if (type === 'pointer') {
        const address = typeof value === 'object' ? value.address : 0
        view.setBigUint64(offset, BigInt(address), true)
      } else if (typeof value !== 'number') {
        throw new Error(`the kernel ${name} is given no ${field}`)
      } else if (type === 'f32') view.setFloat32(offset, value, true)
      else view.setUint32(offset, value, true)
    }
    return extra
  }
}
