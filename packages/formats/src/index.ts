export { entryTensors } from './checkpoint/entries.ts'
export { type CheckpointParts, openCheckpoint } from './checkpoint/open.ts'
export {
  type AssembleOptions,
  assemble,
  type Described,
  dropParts,
  hasPart,
  jsonBytes,
  openPart,
  writePart,
} from './checkpoint/staging.ts'
export { openFolder, readJson } from './folder/checkpoint-folder.ts'
export type { Folder } from './folder/folder.ts'
export { dense } from './layouts/dense.ts'
export { gptq, gptqFormat, gptqV2 } from './layouts/gptq.ts'
export { FORMATS } from './layouts/index.ts'
export { lowbit } from './layouts/lowbit.ts'
