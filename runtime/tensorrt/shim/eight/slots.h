// The entries of TensorRT 8's tables that the shim calls.
//
// An object of TensorRT 8 holds a pointer to one with a table of virtual functions, whose order is fixed within the
// major version: later ones are appended. No registry that set-up fetches from has headers of 8, so this is our own
// description of the few entries that we need; `check.cpp` holds every line of it against real headers.
//
// REVOADA_SLOT(table, entry, number, answer, arguments): the first two numbers of a table are those of its destructor.
// clang-format off

REVOADA_SLOT(VHostMemory, data, 2, void*, ())
REVOADA_SLOT(VHostMemory, size, 3, size_t, ())

REVOADA_SLOT(VTensor, getName, 3, char const*, ())
REVOADA_SLOT(VTensor, getDimensions, 5, Dims, ())
REVOADA_SLOT(VTensor, getType, 7, DataType, ())
REVOADA_SLOT(VTensor, isShapeTensor, 21, bool, ())

REVOADA_SLOT(VLayer, getType, 2, LayerType, ())
REVOADA_SLOT(VLayer, getName, 4, char const*, ())
REVOADA_SLOT(VLayer, getNbInputs, 5, int32_t, ())
REVOADA_SLOT(VLayer, getInput, 6, ITensor*, (int32_t))
REVOADA_SLOT(VLayer, getNbOutputs, 7, int32_t, ())
REVOADA_SLOT(VLayer, getOutput, 8, ITensor*, (int32_t))
REVOADA_SLOT(VLayer, setPrecision, 10, void, (DataType))
REVOADA_SLOT(VLayer, setOutputType, 14, void, (int32_t, DataType))

REVOADA_SLOT(VNetworkDefinition, getNbLayers, 17, int32_t, ())
REVOADA_SLOT(VNetworkDefinition, getLayer, 18, ILayer*, (int32_t))
REVOADA_SLOT(VNetworkDefinition, getNbInputs, 19, int32_t, ())
REVOADA_SLOT(VNetworkDefinition, getInput, 20, ITensor*, (int32_t))
REVOADA_SLOT(VNetworkDefinition, setErrorRecorder, 53, void, (IErrorRecorder*))

REVOADA_SLOT(VOptimizationProfile, setDimensions, 2, bool, (char const*, OptProfileSelector, Dims))

REVOADA_SLOT(VTimingCache, serialize, 2, IHostMemory*, ())

REVOADA_SLOT(VBuilderConfig, setMaxWorkspaceSize, 10, void, (size_t))
REVOADA_SLOT(VBuilderConfig, setFlag, 15, void, (BuilderFlag))
REVOADA_SLOT(VBuilderConfig, setDLACore, 22, void, (int32_t))
REVOADA_SLOT(VBuilderConfig, setDefaultDeviceType, 24, void, (DeviceType))
REVOADA_SLOT(VBuilderConfig, addOptimizationProfile, 29, int32_t, (IOptimizationProfile const*))
REVOADA_SLOT(VBuilderConfig, setProfilingVerbosity, 31, void, (ProfilingVerbosity))
REVOADA_SLOT(VBuilderConfig, createTimingCache, 44, ITimingCache*, (void const*, size_t))
REVOADA_SLOT(VBuilderConfig, setTimingCache, 45, bool, (ITimingCache const&, bool))
REVOADA_SLOT(VBuilderConfig, getTimingCache, 46, ITimingCache const*, ())
#if REVOADA_EIGHT_MINOR >= 5
REVOADA_SLOT(VBuilderConfig, setMemoryPoolLimit, 47, void, (MemoryPoolType, size_t))
#endif
#if REVOADA_EIGHT_MINOR >= 6
REVOADA_SLOT(VBuilderConfig, setHardwareCompatibilityLevel, 53, void, (HardwareCompatibilityLevel))
#endif

REVOADA_SLOT(VBuilder, getNbDLACores, 7, int32_t, ())
REVOADA_SLOT(VBuilder, createBuilderConfig, 9, IBuilderConfig*, ())
REVOADA_SLOT(VBuilder, createNetworkV2, 11, INetworkDefinition*, (NetworkDefinitionCreationFlags))
REVOADA_SLOT(VBuilder, createOptimizationProfile, 12, IOptimizationProfile*, ())
REVOADA_SLOT(VBuilder, setErrorRecorder, 13, void, (IErrorRecorder*))
REVOADA_SLOT(VBuilder, buildSerializedNetwork, 17, IHostMemory*, (INetworkDefinition&, IBuilderConfig&))

REVOADA_SLOT(VRuntime, deserializeCudaEngine, 2, ICudaEngine*, (void const*, size_t, IPluginFactory*))
REVOADA_SLOT(VRuntime, setDLACore, 3, void, (int32_t))
REVOADA_SLOT(VRuntime, getNbDLACores, 5, int32_t, ())
REVOADA_SLOT(VRuntime, setErrorRecorder, 7, void, (IErrorRecorder*))
#if REVOADA_EIGHT_MINOR >= 6
REVOADA_SLOT(VRuntime, setEngineHostCodeAllowed, 20, void, (bool))
#endif

REVOADA_SLOT(VEngineInspector, getEngineInformation, 5, char const*, (LayerInformationFormat))

REVOADA_SLOT(VCudaEngine, getNbBindings, 2, int32_t, ())
REVOADA_SLOT(VCudaEngine, getBindingIndex, 3, int32_t, (char const*))
REVOADA_SLOT(VCudaEngine, getBindingName, 4, char const*, (int32_t))
REVOADA_SLOT(VCudaEngine, bindingIsInput, 5, bool, (int32_t))
REVOADA_SLOT(VCudaEngine, getBindingDimensions, 6, Dims, (int32_t))
REVOADA_SLOT(VCudaEngine, getBindingDataType, 7, DataType, (int32_t))
REVOADA_SLOT(VCudaEngine, getNbLayers, 9, int32_t, ())
REVOADA_SLOT(VCudaEngine, createExecutionContext, 11, IExecutionContext*, ())
REVOADA_SLOT(VCudaEngine, getLocation, 12, TensorLocation, (int32_t))
REVOADA_SLOT(VCudaEngine, createExecutionContextWithoutDeviceMemory, 13, IExecutionContext*, ())
REVOADA_SLOT(VCudaEngine, getDeviceMemorySize, 14, size_t, ())
REVOADA_SLOT(VCudaEngine, getNbOptimizationProfiles, 22, int32_t, ())
REVOADA_SLOT(VCudaEngine, getProfileDimensions, 23, Dims, (int32_t, int32_t, OptProfileSelector))
REVOADA_SLOT(VCudaEngine, createEngineInspector, 33, IEngineInspector*, ())
#if REVOADA_EIGHT_MINOR >= 5
REVOADA_SLOT(VCudaEngine, getTensorShape, 34, Dims, (char const*))
REVOADA_SLOT(VCudaEngine, getTensorDataType, 35, DataType, (char const*))
REVOADA_SLOT(VCudaEngine, getTensorLocation, 36, TensorLocation, (char const*))
REVOADA_SLOT(VCudaEngine, getTensorIOMode, 38, TensorIOMode, (char const*))
REVOADA_SLOT(VCudaEngine, getProfileShape, 44, Dims, (char const*, int32_t, OptProfileSelector))
REVOADA_SLOT(VCudaEngine, getNbIOTensors, 45, int32_t, ())
REVOADA_SLOT(VCudaEngine, getIOTensorName, 46, char const*, (int32_t))
#endif

REVOADA_SLOT(VExecutionContext, setProfiler, 6, void, (IProfiler*))
REVOADA_SLOT(VExecutionContext, setDeviceMemory, 11, void, (void*))
REVOADA_SLOT(VExecutionContext, getOptimizationProfile, 14, int32_t, ())
REVOADA_SLOT(VExecutionContext, setBindingDimensions, 15, bool, (int32_t, Dims))
REVOADA_SLOT(VExecutionContext, getBindingDimensions, 16, Dims, (int32_t))
REVOADA_SLOT(VExecutionContext, allInputDimensionsSpecified, 19, bool, ())
REVOADA_SLOT(VExecutionContext, setErrorRecorder, 21, void, (IErrorRecorder*))
REVOADA_SLOT(VExecutionContext, enqueueV2, 24, bool, (void* const*, cudaStream_t, cudaEvent_t*))
REVOADA_SLOT(VExecutionContext, setOptimizationProfileAsync, 25, bool, (int32_t, cudaStream_t))
#if REVOADA_EIGHT_MINOR >= 5
REVOADA_SLOT(VExecutionContext, setInputShape, 29, bool, (char const*, Dims const&))
REVOADA_SLOT(VExecutionContext, getTensorShape, 30, Dims, (char const*))
REVOADA_SLOT(VExecutionContext, setTensorAddress, 32, bool, (char const*, void*))
REVOADA_SLOT(VExecutionContext, inferShapes, 35, int32_t, (int32_t, char const**))
REVOADA_SLOT(VExecutionContext, enqueueV3, 44, bool, (cudaStream_t))
#endif

