export { packCodes, packedBytes, unpackCodes } from './bits/stream.ts'
export { digest } from './digest.ts'
export { type ErrorDetails, LowbitError } from './errors.ts'
export * from './kernels/arguments.ts'
export * from './kernels/codes.ts'
export * from './kernels/tensors.ts'
export * from './kernels/vectors.ts'
export {
  blockCount,
  blockGrid,
  blockIndexer,
  perGroup,
  perRow,
  perTensor,
} from './matrix/blocks.ts'
export { decode, decodeNumbers, decodeStage, isNested, scaleValues } from './matrix/decode.ts'
export { equalMatrices } from './matrix/equal.ts'
export {
  binaryGrid,
  floatGrid,
  gridBits,
  gridLevels,
  gridTables,
  gridValues,
  normalFloatGrid,
  signedGrid,
  ternaryGrid,
  unsignedGrid,
  zeroOneGrid,
} from './matrix/grid.ts'
export { rotateColumns, rotateRows } from './matrix/rotation.ts'
export {
  bitsPerWeight,
  type MatrixSize,
  measureMatrix,
  numberBits,
  sharedTables,
} from './matrix/size.ts'
export * from './matrix/types.ts'
export { validateMatrix } from './matrix/validate.ts'
export {
  decodeFloat,
  encodeFloat,
  FLOAT_FORMATS,
  type FloatFormat,
  floatBits,
  floatFormat,
  largestFloat,
} from './numbers/float.ts'
export {
  bfloatToFloat,
  floatToBfloat,
  floatToHalf,
  fromFloat32,
  halfToFloat,
  toFloat32,
} from './numbers/half.ts'
export { normalDistribution, normalFloat, normalQuantile } from './numbers/normal-float.ts'
export { loadNumbers, numbersBytes, storeNumbers, toNumbers } from './numbers/storage.ts'
export * from './plugins/architecture.ts'
export * from './plugins/cache-kernels.ts'
export * from './plugins/cache-scheme.ts'
export * from './plugins/checkpoint.ts'
export * from './plugins/define.ts'
export * from './plugins/describe-options.ts'
export * from './plugins/executor.ts'
export * from './plugins/format.ts'
export * from './plugins/gradients.ts'
export * from './plugins/kernels.ts'
export * from './plugins/linear.ts'
export * from './plugins/quantizer.ts'
export * from './plugins/training.ts'
export * from './plugins/transform.ts'
export * from './plugins/tuner.ts'
export { seededRandom, seedFor } from './random.ts'
export { sampleLogits } from './sampling/sample-logits.ts'
export { assertFinite } from './scalar/finite.ts'
export {
  type GridName,
  gridName,
  makeGrid,
  NAMED_GRIDS,
  type NamedGrid,
  namedGrid,
} from './scalar/named-grid.ts'
export {
  type ScalarOptions,
  type ScalarScheme,
  scalarOptions,
  scalarScheme,
  schemeBlocks,
} from './scalar/options.ts'
export { type StoredScale, storeScale, storeZero } from './scalar/scales.ts'
export { shareOption } from './scalar/share.ts'
export { type Factor, factorHessian } from './second-order/factor.ts'
export { requireHessian } from './second-order/hessian.ts'
export { columnOrder, inverseOrder, type OrderName } from './second-order/order.ts'
export { randomRotation, rotateLayer } from './second-order/rotate.ts'
export { type KMeansOptions, kMeans } from './vectors/k-means.ts'
export { type CodedPart, type UpdateInput, updateTables } from './vectors/update-tables.ts'
export { columnBlocks, type GridWords, gridWords } from './words/grid.ts'
export { type PackedWords, packDense, WORD_BLOCK, type WordLayout } from './words/pack.ts'
export {
  type PlacedPart,
  type PlacedWords,
  placeWords,
  releaseWords,
  type WordMemory,
} from './words/place.ts'
export { planWords, type WordPlan } from './words/plan.ts'
