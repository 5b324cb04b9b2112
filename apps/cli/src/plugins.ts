/** The one place that names concrete plugins. A new method, format or device is a line here. */

import type { Kernels, QuantizerPlugin } from '@lowbit/core'
import { cpu } from '@lowbit/kernels-cpu'
import { CACHE_SCHEMES as BY_OPTIONS, type CacheSchemePlugin, cq } from '@lowbit/kvcache'
import { palettize } from '@lowbit/palettize'
import { gptq } from '@lowbit/quantizer-gptq'
import { gptvq, pq } from '@lowbit/quantizer-gptvq'
import { rtn } from '@lowbit/quantizer-rtn'
import { vptq } from '@lowbit/quantizer-vptq'
import { keptChoices } from './kept-choices.ts'

export { FORMATS } from '@lowbit/formats'

export const QUANTIZERS: readonly QuantizerPlugin[] = [gptq, vptq, gptvq, palettize, pq, rtn]

/** `cq` learns from a text first (model-source/fit-cache.ts). */
export const CACHE_SCHEMES: readonly CacheSchemePlugin[] = [...BY_OPTIONS, cq]

/** What `quantize` does when no method is named: the best known. */
export const DEFAULT_METHOD = 'gptq'

export interface KernelsRequest {
  readonly threads?: number
  /** The same bits on every machine. */
  readonly strict: boolean
}

export const DEVICES: Readonly<Record<string, (request: KernelsRequest) => Promise<Kernels>>> = {
  // A process of our own may set the engine's flags.
  cpu: (request) => cpu({ ...request, wide: true }),
  // Loaded when asked for; says what to install where the module webgpu is missing.
  webgpu: async () => (await import('@lowbit/kernels-webgpu')).webgpu({ cache: keptChoices() }),
  cuda: async () => (await import('@lowbit/kernels-cuda-bindings')).cuda(),
}

export const DEFAULT_DEVICE = 'cpu'
