/**
 * The device: operations are recorded into one command buffer, which is submitted when something is read back, or
 * when many have come together.
 */

import { LowbitError } from '@lowbit/core'
import { type Block, createBuffers, KEPT } from './buffers.ts'
import { createProfile, type ShaderTime } from './profile.ts'
import { type Shader, wgsl } from './shader.ts'

/** A run of 4-byte numbers in a buffer of the device. */
export interface Span {
  readonly block: Block
  /** Index of the first number. */
  readonly at: number
  readonly length: number
}

/** Which of several shaders does an operation; they differ in speed alone. */
export interface Choices {
  /** Dense products. */
  readonly product: 'tiles' | 'subgroups'
  /** Up to four rows times a weight of scalars. */
  readonly vector: 'words' | 'subgroups'
  /** More rows. */
  readonly matrix: 'tiles' | 'subgroups'
  /** Where x may be rounded to bytes: up to four rows, and more. `f32` leaves it alone. */
  readonly vectorInt8: 'f32' | 'dots'
  readonly matrixInt8: 'f32' | 'dots'
  /** Where x may be rounded to f16: more than four rows. */
  readonly matrixF16: 'f32' | 'f16'
}

/** What every device can do. */
export const PLAIN: Choices = {
  ...{ product: 'tiles', vector: 'words', matrix: 'tiles' },
  ...{ vectorInt8: 'f32', matrixInt8: 'f32', matrixF16: 'f32' },
}

/** What shaders make use of, beyond what every device has. */
export interface Abilities {
  /** Threads that every subgroup surely has, of which shaders make use: 8, 4, or 0 for none. */
  readonly subgroup: number
  /** Dot products of packed bytes. */
  readonly dots: boolean
  /** Numbers of 16 bits. */
  readonly halves: boolean
  /** Dispatches are timed, each in a pass of its own. */
  readonly profiled?: boolean
}

export interface Device extends Abilities {
  readonly gpu: GPUDevice
  /** Set once the device has been measured. */
  choices: Choices
  /** Memory of tensors and weights, in bytes, and the most it may be, which is set once the device has been measured. */
  readonly bytes: number
  memoryLimit: number
  /** Memory that is counted; `release` gives it back. */
  allocate(length: number, values?: Uint32Array | Float32Array): Span
  release(span: Span): void
  /** Memory for the operation that is recorded next. */
  scratch(length: number): Span
  /** Numbers from here for the operation that is recorded next. */
  constant(values: Uint32Array | Float32Array): Span
  zero(span: Span): void
  write(span: Span, values: Uint32Array | Float32Array): void
  copy(out: Span, x: Span): void
  /** Records `groups` workgroups of a shader. An input in the same buffer as an output is copied first. */
  run(
    shader: Shader,
    spans: Readonly<Record<string, Span>>,
    params: Readonly<Record<string, number>>,
    groups: number,
  ): void
  read(span: Span): Promise<ArrayBuffer>
  /** Throws what has gone wrong on the device since. */
  /** Shaders by the time that they took, where dispatches are timed. */
  times(): Promise<ShaderTime[]>
  check(): void
  dispose(): void
}

interface Pipeline {
  readonly pipeline: GPUComputePipeline
  readonly layout: GPUBindGroupLayout
}

/**
 * Memory for an operation of several dispatches, given back when all are recorded: what is recorded later runs later.
 */
export function borrowing<T>(device: Device, work: (take: (length: number) => Span) => T): T {
  const held: Span[] = []
  try {
    return work((length) => {
      const span = device.allocate(length)
      held.push(span)
      return span
    })
  } finally {
    for (const span of held) device.release(span)
  }
}

/** A part of a span. */
export const partOf = ({ block, at }: Span, from: number, length: number): Span => ({
  ...{ block, at: at + from, length },
})

/** Operations of a batch; more would make the device wait for the commands. */
const BATCH = 400
/** Where the parameters of dispatches begin, and the most that one may have. */
const PARAMETER_BYTES = 256
/** Bindings begin at multiples of so many numbers on every device. */
const ALIGNED = 64

const NONE: Abilities = { subgroup: 0, dots: false, halves: false }

export function createDevice(gpu: GPUDevice, abilities: Abilities = NONE): Device {
  const buffers = createBuffers(gpu)
  const profile = abilities.profiled ? createProfile(gpu, BATCH) : undefined
  const pipelines = new Map<Shader, Pipeline>()
  const parameters = new Uint32Array((BATCH * PARAMETER_BYTES) / 4)
  const floats = new Float32Array(parameters.buffer)
  const integers = new Int32Array(parameters.buffer)
  const uniforms = gpu.createBuffer({
    size: parameters.byteLength,
    usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST,
  })
  let encoder: GPUCommandEncoder | undefined
  let pass: GPUComputePassEncoder | undefined
  let recorded = 0
  let batch = 0
  let bytes = 0
  let failure: LowbitError | undefined
  let open = true
  /** Freed once the operation that is being recorded is. */
  const borrowed: Block[] = []

  gpu.onuncapturederror = ({ error }) => {
    failure ??=
      error instanceof GPUOutOfMemoryError
        ? new LowbitError('out-of-memory', `the GPU is out of memory: ${error.message}`)
        : new LowbitError('bad-device', `the GPU refused an operation: ${error.message}`)
  }
  gpu.lost.then(({ reason, message }) => {
    if (reason === 'destroyed' && !open) return
    failure ??= new LowbitError(
      'device-lost',
      `the GPU was lost (${message || reason}); start again, finished work is kept`,
    )
  })

  function check(): void {
    if (!open) throw new LowbitError('disposed', 'these kernels were disposed of')
    if (failure) throw failure
  }

  function commands(): GPUCommandEncoder {
    encoder ??= gpu.createCommandEncoder()
    return encoder
  }

  function copyCommands(): GPUCommandEncoder {
    pass?.end()
    pass = undefined
    return commands()
  }

  function flush(): void {
    pass?.end()
    pass = undefined
    if (!encoder) {
      buffers.sweep()
      return
    }
    if (recorded > 0) {
      gpu.queue.writeBuffer(uniforms, 0, parameters, 0, (recorded * PARAMETER_BYTES) / 4)
    }
    profile?.resolve(encoder)
    gpu.queue.submit([encoder.finish()])
    encoder = undefined
    recorded = 0
    batch++
    buffers.sweep()
  }

  /** Memory that nothing asks for any more; commands that are recorded may still use it. */
  function give(block: Block): void {
    buffers.give(block)
    if (buffers.doomed > KEPT) flush()
  }

  function pipelineOf(shader: Shader): Pipeline {
    const known = pipelines.get(shader)
    if (known) return known
    const inputs = Object.keys(shader.reads).length
    const count = inputs + Object.keys(shader.writes).length
    const layout = gpu.createBindGroupLayout({
      entries: Array.from({ length: count + 1 }, (_, binding) => ({
        binding,
        visibility: GPUShaderStage.COMPUTE,
        buffer:
          binding === 0
            ? { type: 'uniform' as const, hasDynamicOffset: true }
            : { type: binding <= inputs ? ('read-only-storage' as const) : ('storage' as const) },
      })),
    })
    const pipeline = gpu.createComputePipeline({
      label: shader.name,
      layout: gpu.createPipelineLayout({ bindGroupLayouts: [layout] }),
      compute: { module: gpu.createShaderModule({ label: shader.name, code: wgsl(shader) }) },
    })
    const made = { pipeline, layout }
    pipelines.set(shader, made)
    return made
  }

  function use({ block }: Span): void {
    block.batch = batch
  }

  const device: Device = {
    ...{ gpu, ...abilities, choices: PLAIN, memoryLimit: Number.POSITIVE_INFINITY },
    get bytes() {
      return bytes
    },
    allocate(length, values) {
      check()
      if (bytes + length * 4 > device.memoryLimit) {
        throw new LowbitError(
          'out-of-memory',
          `${length * 4} bytes more than the ${bytes} in use are beyond the limit of ${device.memoryLimit}`,
        )
      }
      const block = buffers.take(length * 4, values && batch)
      bytes += length * 4
      const span = { block, at: 0, length }
      if (values) device.write(span, values)
      return span
    },
    release({ block, length }) {
      bytes -= length * 4
      give(block)
    },
    scratch(length) {
      check()
      const block = buffers.take(length * 4)
      borrowed.push(block)
      return { block, at: 0, length }
    },
    constant(values) {
      check()
      const block = buffers.take(values.byteLength, batch)
      borrowed.push(block)
      const span = { block, at: 0, length: values.length }
      device.write(span, values)
      return span
    },
    zero(span) {
      if (span.length === 0) return
      use(span)
      copyCommands().clearBuffer(span.block.buffer, span.at * 4, span.length * 4)
    },
    write(span, values) {
      check()
      if (values.length === 0) return
      // The queue's writes come before the commands that are still being recorded.
      if (span.block.batch === batch) flush()
      gpu.queue.writeBuffer(
        span.block.buffer,
        span.at * 4,
        values.buffer as ArrayBuffer,
        values.byteOffset,
        values.byteLength,
      )
    },
    copy(out, x) {
      check()
      if (x.length === 0) return
      if (out.block === x.block) {
        const apart = device.scratch(x.length)
        device.copy(apart, x)
        return device.copy(out, apart)
      }
      use(out)
      use(x)
      copyCommands().copyBufferToBuffer(
        ...[x.block.buffer, x.at * 4, out.block.buffer, out.at * 4, x.length * 4],
      )
    },
    run(shader, spans, params, groups) {
      check()
      if (groups === 0) return
      if (recorded === BATCH) flush()
      const written = new Set(Object.keys(shader.writes).map((name) => spans[name].block))
      const inputs = Object.keys(shader.reads).map((name) => {
        const span = spans[name]
        if (!written.has(span.block)) return span
        const apart = device.scratch(span.length)
        device.copy(apart, span)
        return apart
      })
      const all = [...inputs, ...Object.keys(shader.writes).map((name) => spans[name])]
      const { pipeline, layout } = pipelineOf(shader)
      const first = (recorded * PARAMETER_BYTES) / 4
      let next = first
      parameters[next++] = groups
      const limit = gpu.limits.maxStorageBufferBindingSize
      const entries = all.map((span, i) => {
        use(span)
        const from = Math.floor(span.at / ALIGNED) * ALIGNED
        parameters[next++] = span.at - from
        const size = Math.min(span.block.size - from * 4, (span.at - from + span.length) * 4)
        if (size > limit) {
          throw new LowbitError(
            'out-of-memory',
            `${shader.name} needs ${size} bytes at once, and this GPU binds ${limit} at most`,
          )
        }
        const resource = { buffer: span.block.buffer, offset: from * 4, size: Math.max(4, size) }
        return { binding: i + 1, resource }
      })
      for (const [name, type] of Object.entries(shader.params)) {
        const value = params[name]
        if (value === undefined) throw new Error(`${shader.name} lacks ${name}`)
        const target = { f32: floats, i32: integers, u32: parameters }[type]
        target[next++] = value
      }
      const size = Math.ceil((next - first) / 4) * 16
      const group = gpu.createBindGroup({
        layout,
        entries: [{ binding: 0, resource: { buffer: uniforms, size } }, ...entries],
      })
      if (profile) pass?.end()
      pass = profile
        ? commands().beginComputePass(profile.pass(shader.name))
        : (pass ?? commands().beginComputePass())
      pass.setPipeline(pipeline)
      pass.setBindGroup(0, group, [recorded * PARAMETER_BYTES])
      const most = gpu.limits.maxComputeWorkgroupsPerDimension
      const down = Math.ceil(groups / most)
      pass.dispatchWorkgroups(Math.ceil(groups / down), down)
      recorded++
      // What an operation has borrowed is free for those recorded after it.
      for (const block of borrowed.splice(0)) give(block)
    },
    async read(span) {
      check()
      if (span.length === 0) return new ArrayBuffer(0)
      const size = span.length * 4
      const target = gpu.createBuffer({
        size,
        usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
      })
      use(span)
      copyCommands().copyBufferToBuffer(span.block.buffer, span.at * 4, target, 0, size)
      flush()
      try {
        await target.mapAsync(GPUMapMode.READ)
      } catch (cause) {
        check()
        throw new LowbitError('device-lost', 'the GPU gave no result back', { cause })
      }
      check()
      const values = target.getMappedRange().slice(0)
      target.destroy()
      return values
    },
    async times() {
      flush()
      return (await profile?.times()) ?? []
    },
    check,
    dispose() {
      if (!open) return
      open = false
      encoder = undefined
      buffers.clear()
      gpu.destroy()
    },
  }
  return device
}
