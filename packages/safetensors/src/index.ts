export { bitsPerElement, DTYPES, type Dtype, isDtype, tensorByteLength } from './dtype.ts'
export { SafetensorsError, type SafetensorsErrorCode } from './error.ts'
export { MAX_HEADER_BYTES, type TensorInfo } from './header.ts'
export { type HttpSourceOptions, httpSource } from './http-source.ts'
export {
  type OpenOptions,
  openSafetensors,
  type Safetensors,
  type SafetensorsFile,
} from './open.ts'
export {
  type MetadataInput,
  planSafetensors,
  type SafetensorsPlan,
  type TensorData,
  type TensorEntry,
} from './plan.ts'
export { isSafeFileName, parseShardIndex, type WeightMap } from './shard-index.ts'
export {
  type OpenShard,
  openSharded,
  type ShardedOptions,
  type ShardedSafetensors,
} from './sharded.ts'
export { blobSource, bytesSource, type SafetensorsInput, type Source } from './source.ts'
export { type WriteOptions, writeSafetensors } from './write.ts'
