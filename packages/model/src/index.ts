export { ARCHITECTURES, findArchitecture } from './architectures/index.ts'
export { llama } from './architectures/llama.ts'
export { type FitCacheOptions, fitCache, fitCacheToText } from './calibration/fit-cache.ts'
export { calibrationWindows, firstTokens } from './calibration/windows.ts'
export {
  type BlockGradients,
  type BlockTrace,
  backwardBlock,
  type DifferentiableBlock,
  type DifferentiableLinear,
  freeTrace,
  traceBlock,
} from './decoder/backward.ts'
export { backwardHead, type Head, type HeadOptions } from './decoder/backward-head.ts'
export {
  type Attend,
  attendCached,
  attendWithin,
  type Block,
  type BlockContext,
  type Linear,
  normalize,
  type Role,
  runBlock,
  STEPS,
  type Step,
} from './decoder/block.ts'
export { type DecoderConfig, decoderConfig } from './decoder/config.ts'
export {
  cacheShapeOf,
  type Decoder,
  type LoadDecoderOptions,
  loadDecoder,
} from './decoder/decoder.ts'
export {
  loadBias,
  loadBlock,
  loadBlockFrame,
  loadEmbedding,
  loadFinalNorm,
  loadHead,
  loadLinear,
  loadRope,
  loadVector,
  type Opened,
  openDecoder,
  readChecked,
  roleShape,
  unloadBlock,
} from './decoder/load.ts'
export { type BlockNames, blockNames, ROLES } from './decoder/names.ts'
export {
  continuationScore,
  parseTask,
  scoreTask,
  type TaskItem,
  type TaskOptions,
  type TaskResult,
} from './evaluation/choices.ts'
export {
  type PerplexityOptions,
  type PerplexityResult,
  perplexity,
} from './evaluation/perplexity.ts'
export { fullCache } from './generation/full-cache.ts'
export { type GenerateOptions, type Generation, generate } from './generation/generate.ts'
export { createMemory, type Memory, type MemoryOptions } from './generation/memory.ts'
export { loadTokenizer, type Message, type Tokenizer } from './tokenizer/tokenizer.ts'
