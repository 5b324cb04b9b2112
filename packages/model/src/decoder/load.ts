/** Checkpoint → decoder parts in the memory of the kernels. */

import type { Checkpoint, Kernels, LoadOptions, Matrix, Tensor, Weight } from '@lowbit/core'
import { LowbitError } from '@lowbit/core'
import type { Block, Linear, Norm, Role } from './block.ts'
import { type DecoderConfig, decoderConfig } from './config.ts'
import { blockNames } from './names.ts'
import { ropeTable } from './rope-table.ts'

/** A checkpoint with its config understood; nothing of it is in the kernels' memory yet. */
export interface Opened {
  readonly checkpoint: Checkpoint
  readonly kernels: Kernels
  readonly config: DecoderConfig
}

export function openDecoder(checkpoint: Checkpoint, kernels: Kernels): Opened {
  return { checkpoint, kernels, config: decoderConfig(checkpoint.config) }
}

/** The expected rows × columns of a block's linear. */
export function roleShape(config: DecoderConfig, role: Role): readonly [number, number] {
  const { hidden, intermediate, heads, keyValueHeads, headSize } = config
  switch (role) {
    case 'query':
      return [heads * headSize, hidden]
    case 'key':
    case 'value':
      return [keyValueHeads * headSize, hidden]
    case 'attentionOutput':
      return [hidden, heads * headSize]
    case 'gate':
    case 'up':
      return [intermediate, hidden]
    case 'down':
      return [hidden, intermediate]
  }
}

/** A module's matrix, refused when config.json says that it must have another shape. */
export async function readChecked(
  checkpoint: Checkpoint,
  module: string,
  [rows, columns]: readonly [number, number],
): Promise<Matrix> {
  const matrix = await checkpoint.readMatrix(module)
  if (matrix.rows !== rows || matrix.columns !== columns) {
    throw new LowbitError(
      'bad-shape',
      `the weight is ${matrix.rows} × ${matrix.columns}, config.json asks for ${rows} × ${columns}`,
      { tensor: `${module}.weight`, file: checkpoint.location },
    )
  }
  return matrix
}

export async function loadVector(
  { checkpoint, kernels }: Opened,
  name: string,
  size: number,
): Promise<Tensor> {
  const { values } = await checkpoint.readVector(name)
  if (values.length !== size) {
    throw new LowbitError(
      'bad-shape',
      `has ${values.length} values, config.json asks for ${size}`,
      {
        tensor: name,
        file: checkpoint.location,
      },
    )
  }
  return kernels.upload(values, 1, size)
}

async function loadNorm(opened: Opened, module: string, size: number): Promise<Norm> {
  const gain = await loadVector(opened, `${module}.weight`, size)
  const bias = opened.checkpoint.hasVector(`${module}.bias`)
    ? await loadVector(opened, `${module}.bias`, size)
    : undefined
  return { gain, bias }
}

/** A block with its norms and without its linears, for calibration to fill in. */
export async function loadBlockFrame(opened: Opened, layer: number): Promise<Block> {
  const { config } = opened
  const names = blockNames(config.architecture, layer)
  return {
    attentionNorm: await loadNorm(opened, names.attentionNorm, config.hidden),
    mlpNorm: await loadNorm(opened, names.mlpNorm, config.hidden),
    linears: {},
  }
}

export async function loadLinear(
  opened: Opened,
  module: string,
  role: Role,
  options?: LoadOptions,
): Promise<Linear> {
  const shape = roleShape(opened.config, role)
  const weight = opened.kernels.load(await readChecked(opened.checkpoint, module, shape), options)
  return { weight, bias: await loadBias(opened, module, shape[0]) }
}

export async function loadBias(
  opened: Opened,
  module: string,
  size: number,
): Promise<Tensor | undefined> {
  const name = `${module}.bias`
  return opened.checkpoint.hasVector(name) ? loadVector(opened, name, size) : undefined
}

export async function loadBlock(
  opened: Opened,
  layer: number,
  options?: LoadOptions,
): Promise<Block> {
  const block = await loadBlockFrame(opened, layer)
  for (const [role, module] of blockNames(opened.config.architecture, layer).modules) {
    block.linears[role] = await loadLinear(opened, module, role, options)
  }
  return block
}

export function unloadBlock(kernels: Kernels, block: Block): void {
  for (const norm of [block.attentionNorm, block.mlpNorm]) {
    kernels.free(norm.gain, ...(norm.bias ? [norm.bias] : []))
  }
  for (const linear of Object.values(block.linears)) {
    kernels.unload(linear.weight)
    if (linear.bias) kernels.free(linear.bias)
  }
}

export async function loadEmbedding(opened: Opened, options?: LoadOptions): Promise<Weight> {
  const { checkpoint, kernels, config } = opened
  const { embedding } = config.architecture.modules
  return kernels.load(
    await readChecked(checkpoint, embedding, [config.vocabulary, config.hidden]),
    options,
  )
}

/** The output matrix: its own, or the embedding's when the two are tied. */
export async function loadHead(
  opened: Opened,
  embedding: Weight,
  options?: LoadOptions,
): Promise<Weight> {
  const { checkpoint, kernels, config } = opened
  const { head } = config.architecture.modules
  if (!checkpoint.hasModule(head)) {
    if (config.tied) return embedding
    throw new LowbitError('missing-tensor', 'the checkpoint has no output matrix', {
      tensor: `${head}.weight`,
      file: checkpoint.location,
    })
  }
  return kernels.load(
    await readChecked(checkpoint, head, [config.vocabulary, config.hidden]),
    options,
  )
}

export async function loadFinalNorm(opened: Opened): Promise<Norm> {
  return loadNorm(opened, opened.config.architecture.modules.finalNorm, opened.config.hidden)
}

export function loadRope(
  { kernels, config }: Opened,
  positions: number,
): { cos: Tensor; sin: Tensor } {
  const { cos, sin } = ropeTable(config, positions)
  const half = config.headSize / 2
  return { cos: kernels.upload(cos, positions, half), sin: kernels.upload(sin, positions, half) }
}
