export { type CacheCodebooks, fitCodebook } from './codebooks.ts'
export { type CodedCacheOptions, codedCache, type GridChoice } from './coded-cache.ts'
export { cq } from './coupled.ts'
export {
  type CacheOrigin,
  type LoadedCache,
  type LoadOrigin,
  loadCache,
  saveCache,
} from './saved.ts'
export { type CodebooksOrigin, loadCodebooks, saveCodebooks } from './saved-codebooks.ts'
export {
  CACHE_SCHEMES,
  type CacheSchemePlugin,
  f16,
  fp8,
  int2,
  int3,
  int4,
  int8,
  kivi,
  nf4,
} from './schemes.ts'
export { fitCacheTable } from './tables.ts'
