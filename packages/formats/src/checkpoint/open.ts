/** Tensors, config and side files → a Checkpoint of modules and vectors. */

import {
  type Checkpoint,
  type Format,
  LowbitError,
  loadNumbers,
  type RawTensor,
  type StoredModule,
  tensorName,
} from '@lowbit/core'
import type { Safetensors } from '@lowbit/safetensors'
import { dense } from '../layouts/dense.ts'
import { FORMATS } from '../layouts/index.ts'

export interface CheckpointParts {
  readonly location: string
  readonly tensors: Safetensors
  readonly config: Readonly<Record<string, unknown>>
  /** Files beside the weights. */
  readonly files: readonly string[]
  readFile(name: string): Promise<Uint8Array>
  close?(): Promise<void>
}

const VECTOR_TYPES = { F32: 'f32', F16: 'f16', BF16: 'bf16' } as const

/** Sorts tensors into modules and vectors by the layout that config.json names; a module stored densely is read so. */
export function openCheckpoint(parts: CheckpointParts): Checkpoint {
  const { tensors, config, location } = parts
  const format = formatOf(config, location)
  const stored = new Map<string, { format: Format; names: readonly string[] }>()
  const taken = new Set<string>()
  for (const [module, relatives] of byModule(tensors.tensors.keys())) {
    const has = (relative: string): boolean => relatives.has(relative)
    if (module === format.sharedModule) {
      for (const name of relatives) taken.add(`${module}.${name}`)
      continue
    }
    for (const layout of format === dense ? [dense] : [format, dense]) {
      const names = layout.tensorsOf(has)
      if (!names) continue
      const isVector =
        layout === dense && tensors.tensors.get(`${module}.weight`)!.shape.length !== 2
      if (isVector) break
      stored.set(module, { format: layout, names })
      const owned = layout.refersTo ? [...relatives].filter((name) => name !== 'bias') : names
      for (const name of owned) taken.add(`${module}.${name}`)
      break
    }
  }
  const vectors: string[] = []
  const rest: string[] = []
  for (const [name, { dtype, shape }] of tensors.tensors) {
    if (taken.has(name)) continue
    if (shape.length === 1 && dtype in VECTOR_TYPES) vectors.push(name)
    else rest.push(name)
  }

  const readRaw = async (name: string): Promise<RawTensor> => {
    const info = tensors.tensors.get(name)
    if (!info) {
      throw new LowbitError('missing-tensor', 'the checkpoint lacks a tensor', {
        tensor: name,
        file: location,
      })
    }
    return { dtype: info.dtype, shape: info.shape, bytes: await tensors.read(name) }
  }

  /** Tables that several modules refer to are read once. */
  const shared = new Map<string, Promise<RawTensor>>()
  const readShared = (name: string): Promise<RawTensor> => {
    const reading = shared.get(name) ?? readRaw(name)
    shared.set(name, reading)
    return reading
  }
  const readOf = (module: string, name: string): Promise<RawTensor> =>
    name.startsWith('/') ? readShared(tensorName(module, name)) : readRaw(`${module}.${name}`)

  return {
    location,
    format: format.name,
    config,
    modules: [...stored.keys()],
    vectors,
    rest,
    hasModule: (module) => stored.has(module),
    hasVector: (tensor) => vectors.includes(tensor),
    readRaw,
    async readMatrix(module) {
      const entry = stored.get(module)
      if (!entry) {
        throw new LowbitError('missing-tensor', 'the checkpoint has no weight for a module', {
          tensor: `${module}.weight`,
          file: location,
        })
      }
      const fetched = new Map<string, RawTensor>()
      for (const name of entry.names) fetched.set(name, await readOf(module, name))
      for (const name of entry.format.refersTo?.(fetched) ?? []) {
        if (!fetched.has(name)) fetched.set(name, await readOf(module, name))
      }
      return entry.format.read(module, fetched as StoredModule, { config })
    },
    async readVector(tensor) {
      const raw = await readRaw(tensor)
      const type = VECTOR_TYPES[raw.dtype as keyof typeof VECTOR_TYPES]
      if (!type || raw.shape.length !== 1) {
        throw new LowbitError(
          'bad-tensor',
          `is ${raw.dtype} of ${raw.shape.length} dimensions, must be a float vector`,
          {
            tensor,
            file: location,
          },
        )
      }
      return { type, values: loadNumbers(type, raw.bytes, raw.shape[0]).values }
    },
    files: parts.files,
    readFile: parts.readFile,
    async close() {
      await tensors.close()
      await parts.close?.()
    },
  }
}

function formatOf(config: Readonly<Record<string, unknown>>, location: string): Format {
  const found = FORMATS.find((format) => format.detect(config))
  if (found) return found
  const settings = config.quantization_config as Record<string, unknown> | undefined
  throw new LowbitError(
    'unknown-format',
    `the checkpoint is quantized as ${JSON.stringify(settings?.quant_method)}, which lowbit does not read yet; it reads ${FORMATS.map(({ name }) => name).join(', ')}`,
    { file: `${location}/config.json` },
  )
}

/** Tensor names cut at the last dot: module → relative names. */
function byModule(names: Iterable<string>): Map<string, Set<string>> {
  const modules = new Map<string, Set<string>>()
  for (const name of names) {
    const dot = name.lastIndexOf('.')
    if (dot < 0) continue
    const module = name.slice(0, dot)
    const relatives = modules.get(module) ?? new Set()
    relatives.add(name.slice(dot + 1))
    modules.set(module, relatives)
  }
  return modules
}
