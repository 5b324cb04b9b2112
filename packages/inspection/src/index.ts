export { type Achieved, type PassParts, partsOfPass } from './cost/achieved.ts'
export { calibratePasses, calibrateProducts, kindOf, sampleKinds } from './cost/calibrate.ts'
export { COST_DEVICES, type DeviceFacts } from './cost/devices.ts'
export {
  type Arithmetic,
  type Forecast,
  forecast,
  type Prediction,
  predict,
} from './cost/roofline.ts'
export {
  type ModelOnPaper,
  type StoredMatrix,
  storedBytes,
  type Work,
  workOf,
} from './cost/work.ts'
export { codeBits, describeMatrix } from './describe-matrix.ts'
export { bytes, count, duration, percent, secondsLeft } from './figures.ts'
export {
  type Inspection,
  inspectCheckpoint,
  type SharedTable,
  type TensorReport,
} from './inspect-checkpoint.ts'
export { linearsOfBlocks, type Place, placesOf, ROLE_NAMES } from './linears.ts'
export type { Drawing } from './pictures/drawing.ts'
export { type Bar, finiteRange, type Histogram, histogram } from './pictures/histogram.ts'
export { findModule } from './pictures/module-name.ts'
export { plotBits, plotErrors } from './pictures/plot-layers.ts'
export { type MatrixPlot, plotMatrix } from './pictures/plot-matrix.ts'
export {
  REPORT,
  type ReportedModule,
  readReport,
  readWholeReport,
  type WholeReport,
} from './report-file.ts'
export { tensorBytes } from './tensor-bytes.ts'
