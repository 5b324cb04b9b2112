export { describeFormat, type FormatContractOptions } from './contracts/format.ts'
export {
  describeKernels,
  type KernelContractOptions,
  type KernelGroup,
} from './contracts/kernels.ts'
export { describeQuantizer, type QuantizerContractOptions } from './contracts/quantizer.ts'
export { demoFolder, demoPath, readDemoFile, readDemoLogits, readDemoText } from './demo.ts'
export {
  type ActivationOptions,
  hessianOf,
  normalRandom,
  type Random,
  randomActivations,
  randomHessian,
  randomIntegers,
  randomOrder,
  randomValues,
  randomWeight,
} from './random.ts'
export { referenceKernels } from './reference/kernels.ts'
export { denseValues } from './reference/matrices.ts'
export { type CodebookOptions, codebookStage } from './samples/codebook.ts'
export {
  denseSamples,
  ODD_SHAPES,
  randomRotation,
  type SampleMatrix,
  sampleMatrices,
  scalarSamples,
  structuredSamples,
  thinSamples,
} from './samples/matrices.ts'
export {
  type GridSample,
  palette,
  randomCodes,
  randomStage,
  type StageOptions,
  scalarGrids,
  scalarMatrix,
} from './samples/scalar.ts'
