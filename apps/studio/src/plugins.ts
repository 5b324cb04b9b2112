/** The concrete plugins of the studio. A new method is a line here. */

import type { QuantizerPlugin } from '@lowbit/core'
import { CACHE_SCHEMES as BY_OPTIONS, type CacheSchemePlugin, cq } from '@lowbit/kvcache'
import { palettize } from '@lowbit/palettize'
import { gptq } from '@lowbit/quantizer-gptq'
import { gptvq, pq } from '@lowbit/quantizer-gptvq'
import { rtn } from '@lowbit/quantizer-rtn'
import { vptq } from '@lowbit/quantizer-vptq'

export { FORMATS } from '@lowbit/formats'
/** `cq` learns from a text first. */
export const CACHE_SCHEMES: readonly CacheSchemePlugin[] = [...BY_OPTIONS, cq]

export const QUANTIZERS: readonly QuantizerPlugin[] = [gptq, vptq, gptvq, palettize, pq, rtn]
